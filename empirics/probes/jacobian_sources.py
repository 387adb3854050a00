"""Where squared norms of J^T v come from: layer by layer, from inputs, or one sample and output at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from empirics.probes.jacobian_batch import Predict, changed, count, predicted, take
from empirics.probes.jacobian_graph import UnsupportedError, skeleton
from empirics.probes.jacobian_parameters import Layers
from empirics.probes.twin import leaves
from empirics.tensors import TensorView, tensors
from theory.errors import require

PASS = 1 / 3
"""Cost of a forward pass, or of a backward pass that leaves out the weights, in gradients."""
LAYERS, INPUTS, SINGLE = "layers", "inputs", "one vjp a sample and output"


@dataclass(frozen=True)
class Opened:
    """Some samples, ready for cotangents."""

    outputs: Tensor
    """Of the samples."""
    squares: Callable[[Tensor], Tensor]
    """From v, shaped like the outputs, to ||J^T v||^2 by sample and column, float64."""
    once: float
    """What it cost so far, in gradients of these samples."""
    each: float
    """What a cotangent costs."""


class Source:
    """Squared norms of J^T v for batches of samples of a model.

    Args:
        model: A functional copy, whose gradients do not matter.
        predict: From model and batch to outputs.
        batch: Of which a sample or two are tried.
        wrt: "parameters" or "inputs".
        statistics: BatchNorm's.

    Raises:
        InputError: If outputs or inputs cannot be differentiated.
    """

    def __init__(self, model: nn.Module, predict: Predict, batch: Any, *, wrt: str, statistics: str) -> None:
        self.model, self.predict, self.wrt = model, predict, wrt
        self.views: tuple[TensorView, ...] = tensors(model) if wrt == "parameters" else ()
        if wrt == "inputs":
            model.requires_grad_(False)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.n, self.reason, self.coupled = count(batch), "", False
        self.method = LAYERS if wrt == "parameters" else INPUTS
        few, more = (self._forward(take(batch, torch.arange(size) % self.n)) for size in (2, 3))
        self.outputs, self.positions = few[0][0].numel(), few[0].shape[1:-1].numel()
        self.device, self.trial_cost = few[0].device, (2 + 3 + 2 * 2) * PASS / self.n
        if statistics == "train" and any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
            self._single("BatchNorm's batch statistics couple the samples", coupled=True)
        elif wrt == "inputs" and leaks(*few):
            self._single("samples act on each other", coupled=True)
        elif wrt == "parameters":
            try:
                self.skeleton = skeleton(more[0], few[0])
            except UnsupportedError as error:
                self._single(str(error), coupled=error.coupled)

    def open(self, batch: Any, cotangents: int) -> Opened:
        """Run the model on some samples.

        Args:
            batch: The samples, a copy that may be changed.
            cotangents: How many are to come.
        """
        if self.method == LAYERS:
            outputs, _ = self._forward(batch)
            try:
                layers = Layers(outputs, self.skeleton, self.views, cotangents)
            except UnsupportedError as error:
                self._single(str(error), coupled=error.coupled)
            else:
                once, each = layers.cost
                pass_ = layers.forward or 1.0
                return Opened(outputs, layers.squares, PASS * (1 + once / pass_), PASS * (1 + each / pass_))
        if self.method == INPUTS:
            outputs, wanted = self._forward(batch)

            def squares(v: Tensor) -> Tensor:
                found = torch.autograd.grad(
                    outputs, wanted, v, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                return sum_squares(found)[:, None]

            return Opened(outputs, squares, PASS, PASS)
        return self._one_by_one(batch)

    def _forward(self, batch: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Outputs, and the tensors to differentiate in if that is done in one go."""
        if self.wrt == "parameters":
            return predicted(self.predict, self.model, batch), self.parameters
        n = count(batch)

        def watched(x: Tensor) -> Tensor:
            return x.requires_grad_() if x.is_floating_point() and x.dim() > 0 and len(x) == n else x

        batch = changed(batch, watched)
        wanted = [x for x in leaves(batch) if x.requires_grad]
        require(len(wanted) > 0, "batch", "whole numbers only", "of floating-point inputs for wrt='inputs'")
        return predicted(self.predict, self.model, batch), wanted

    def _single(self, reason: str, *, coupled: bool) -> None:
        self.method, self.reason, self.coupled = SINGLE, reason, coupled

    def _one_by_one(self, batch: Any) -> Opened:
        """A backward pass for every sample: of its own graph, or of all samples' where they act on each other."""
        n = count(batch)
        if self.coupled:
            graphs = [self._forward(batch)] * n
            outputs, rows = graphs[0][0], list(range(n))
        else:
            graphs = [self._forward(take(batch, torch.tensor([i]))) for i in range(n)]
            outputs, rows = torch.cat([graph[0].detach() for graph in graphs]), [0] * n

        def squares(v: Tensor) -> Tensor:
            found = []
            for (own, wanted), row, cotangent in zip(graphs, rows, v, strict=True):
                g = torch.autograd.grad(
                    own[row], wanted, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                found.append(self._columns(g))
            return torch.stack(found)

        return Opened(outputs, squares, PASS, 2 * PASS * (n if self.coupled else 1))

    def _columns(self, gradients: Sequence[Tensor]) -> Tensor:
        """Squared norms of one sample's gradients, float64, by tensor."""
        dense = [g.to_dense() if g.is_sparse else g for g in gradients]
        if self.wrt == "inputs":
            return sum_squares([g[None] for g in dense])
        by_tensor = {id(p): g for p, g in zip(self.parameters, dense, strict=True)}
        squares = [view.of(by_tensor[id(view.parameter)]).square().sum(dtype=torch.float64) for view in self.views]
        return torch.stack(squares)


def leaks(outputs: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether outputs of the first sample depend on inputs of another.

    Args:
        outputs: Of a few samples, with their graph.
        inputs: Of the same.
    """
    v = torch.zeros_like(outputs)
    v[0] = 1 + torch.rand(v[0].shape, generator=torch.Generator().manual_seed(0)).to(v)
    found = torch.autograd.grad(outputs, inputs, v, allow_unused=True, materialize_grads=True)
    return any(bool(g[1:].any()) for g in found)


def sum_squares(gradients: Sequence[Tensor]) -> Tensor:
    """Squared norms over all but the first axis, summed over tensors, float64, shape (n,)."""
    return torch.stack([g.flatten(1).square().sum(1, dtype=torch.float64) for g in gradients]).sum(0)
