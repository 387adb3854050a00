"""Products with the Hessian and the Gauss-Newton matrix of a loss on one batch.

Reverse over reverse: the graph of the gradient is built once and every product is one more backward pass through it.
Measured on our GPT-2 and ResNet, one product costs about two gradients; forward over reverse, which has to repeat the
forward pass and lacks rules for some operations, was 1.6 to 3.7 times slower, batching products no faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from empirics.probes.losses import CrossEntropy, SquaredError
from empirics.probes.twice import twice_differentiable
from empirics.probes.twin import (
    POLICY,
    LossFn,
    check_batch,
    check_full_precision,
    check_loss,
    explained,
    twin,
    unchanged,
    untouched,
)
from theory.errors import InputError


class Curvature:
    """Curvature of one loss on one batch in all trainable parameters, as a map of flat vectors.

    Args:
        model: Any module with float32 or float64 parameters; stays as it is.
        loss_fn: Scalar loss of (model, batch); `CrossEntropy` or `SquaredError` to have Gauss-Newton products.
        batch: Given to `loss_fn`.
        statistics: BatchNorm's: "eval" (running) or "train" (of the batch, without an update).

    Raises:
        InputError: If the batch is empty or changed in place, the loss not a differentiable scalar, or the model of
            half precision, on the meta device or without trainable parameters.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> curvature = Curvature(model, lambda m, x: m(x).square().mean(), torch.tensor([[3.0]]))
        >>> curvature.hessian(torch.ones(1)).item()    # of (3 w)^2
        18.0
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn, batch: Any, *, statistics: str = "eval") -> None:
        check_batch(batch)
        check_full_precision(model)
        other = twin(model, statistics=statistics)
        self.policy = POLICY.format(statistics=statistics) + "; math attention"
        self.model, self.statistics = other, statistics
        named = {name: p for name, p in other.named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        biases = [i for i, (name, p) in enumerate(named.items()) if name.endswith("bias") and p.dim() <= 1]
        self.blocks = [[i] for i in range(len(named)) if i not in biases] + ([biases] if biases else [])
        self.sizes = [p.numel() for p in self.parameters]
        self.size, self.device = sum(self.sizes), self.parameters[0].device
        self.loss_fn = loss_fn if isinstance(loss_fn, (CrossEntropy, SquaredError)) else None
        with untouched(model), unchanged(batch), twice_differentiable():
            if self.loss_fn is None:
                self.loss = check_loss(loss_fn(other, batch))
            else:
                self.outputs, self.targets = self.loss_fn.predict(other, batch)
                self.loss = check_loss(self.loss_fn.loss(self.outputs, self.targets))

    def split(self, vector: Tensor) -> list[Tensor]:
        """The parts of a flat vector, shaped like the parameters."""
        parts = zip(vector.split(self.sizes), self.parameters, strict=True)
        return [part.view_as(p).to(p.dtype) for part, p in parts]

    def random(self, generator: torch.Generator) -> Tensor:
        """A vector of independent random signs."""
        return signs(self.size, generator, dtype=self.parameters[0].dtype)

    @cached_property
    def gradient(self) -> Sequence[Tensor]:
        """Of the loss, with its graph."""
        return self._differentiate(self.loss)

    def slope(self, *, with_graph: bool) -> Tensor:
        """The gradient as a flat vector; its graph is kept if Hessian products are to follow."""
        parts = self.gradient if with_graph else self._grad([self.loss], self.parameters, [torch.ones_like(self.loss)])
        return torch.cat([g.detach().reshape(-1) for g in parts])

    @cached_property
    def residual_gradient(self) -> Sequence[Tensor]:
        """Of <dloss/doutputs, outputs> at constant first factor: its Hessian is Hessian minus Gauss-Newton."""
        return self._differentiate(self.outputs, torch.autograd.grad(self.loss, self.outputs, retain_graph=True)[0])

    def hessian(self, vector: Tensor) -> Tensor:
        """Hessian times a flat vector."""
        return self._pull_back(self.gradient, self.split(vector))

    def residual(self, vector: Tensor) -> Tensor:
        """Hessian minus Gauss-Newton matrix, times a flat vector."""
        return self._pull_back(self.residual_gradient, self.split(vector))

    def gauss_newton(self, vector: Tensor) -> Tensor:
        """Gauss-Newton matrix times a flat vector, with the loss's closed form in the outputs."""
        loss_fn = self.known_loss()
        dual, pulled = self._linear
        pairs = [(g, v) for g, v in zip(pulled, self.split(vector), strict=True) if g.requires_grad]
        pushed = torch.autograd.grad([g for g, _ in pairs], dual, [v for _, v in pairs], retain_graph=True)[0]
        outer = loss_fn.product(self.outputs.detach(), self.targets, pushed)
        return self._pull_back([self.outputs], [outer])

    def residual_blocks(self, vector: Tensor) -> Tensor:
        """The diagonal blocks of that matrix times a flat vector: one block a parameter, one for all biases."""
        gradients, vectors = self.residual_gradient, self.split(vector)
        parts = list(vectors)
        for block in self.blocks:
            chosen = [[each[i] for i in block] for each in (gradients, self.parameters, vectors)]
            for i, part in zip(block, self._grad(*chosen), strict=True):
                parts[i] = part
        return torch.cat([part.reshape(-1) for part in parts])

    def pull_back(self, cotangent: Tensor) -> Sequence[Tensor]:
        """J^T times a cotangent of the outputs; one backward pass."""
        return self._grad([self.outputs], self.parameters, [cotangent])

    def known_loss(self) -> CrossEntropy | SquaredError:
        """The loss, if its curvature is known in closed form, else an error."""
        if self.loss_fn is None:
            raise InputError("kind = 'gauss_newton' is not allowed: loss_fn must be a CrossEntropy or a SquaredError.")
        return self.loss_fn

    @cached_property
    def _linear(self) -> tuple[Tensor, Sequence[Tensor]]:
        """A cotangent u and J^T u with its graph, which is linear in u: its own pullback is J."""
        dual = torch.zeros_like(self.outputs, requires_grad=True)
        return dual, self._differentiate(self.outputs, dual)

    def _differentiate(self, output: Tensor, cotangent: Tensor | None = None) -> Sequence[Tensor]:
        with explained():
            gradients = torch.autograd.grad(output, self.parameters, cotangent, create_graph=True, allow_unused=True)
        if all(g is None for g in gradients):
            raise InputError(
                "loss_fn's result does not depend on the model that it is given: it must use that argument."
            )
        return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, self.parameters, strict=True)]

    def _pull_back(self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Tensor:
        return torch.cat([g.reshape(-1) for g in self._grad(outputs, self.parameters, cotangents)])

    def _grad(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Any:
        pairs = [(y, v) for y, v in zip(outputs, cotangents, strict=True) if y.requires_grad]
        if not pairs:  # outputs are constants
            return [torch.zeros_like(x) for x in inputs]
        ys, vs = zip(*pairs, strict=True)
        try:
            return torch.autograd.grad(ys, inputs, vs, retain_graph=True, allow_unused=True, materialize_grads=True)
        except RuntimeError as error:
            if "derivative" not in str(error) and "not implemented" not in str(error):
                raise
            raise InputError(f"loss_fn cannot be differentiated twice: {error}") from error


def signs(shape: torch.Size | int, generator: torch.Generator, *, dtype: torch.dtype) -> Tensor:
    """Independent random signs on the generator's device.

    Args:
        shape: Their shape.
        generator: The only source of randomness.
        dtype: Of the result.

    Returns:
        A tensor of -1 and 1.
    """
    size = (shape,) if isinstance(shape, int) else shape
    return torch.randint(0, 2, size, generator=generator, device=generator.device, dtype=dtype).mul_(2).sub_(1)


def generator(curvature: Curvature, seed: int) -> torch.Generator:
    """A seeded generator on the parameters' device, apart from torch's global ones."""
    return torch.Generator(curvature.device).manual_seed(seed)
