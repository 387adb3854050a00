"""Does the loss ignore the scale of a tensor? Tested numerically, tensor by tensor, on one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from empirics.probes.twin import check_batch, check_loss, explained, unchanged
from empirics.tensors import TensorView
from theory.errors import require

RADIAL_TOLERANCE = 0.01
"""Largest `radial` and `loss_change` of a scale-invariant tensor; float32 and layers' epsilon give 1e-9 .. 1e-3."""
GRADIENT_TOLERANCE = 0.2
"""Largest `gradient_change` of one; an epsilon pushes activations across ReLU's kink, which alone gave up to 0.08.

A tensor that is not invariant can be nearly orthogonal to its gradient by chance and hardly matter to the loss (Q and K
at initialisation: 1e-4), but its gradient does not halve at twice the scale: 0.4 .. 2 was seen.
"""


@dataclass(frozen=True)
class Defect:
    """How far a tensor is from f(s*w) = f(w): three numbers that are 0 if it holds, nan where they are 0/0."""

    radial: float
    """|<g,w>| / (||g|| ||w||), in [0, 1]."""
    loss_change: float
    """|f(2w) - f(w)| / |f(w)|."""
    gradient_change: float
    """||2 g(2w) - g(w)|| / ||g(w)||: the gradient of a scale-invariant loss halves at twice the scale."""

    @property
    def is_invariant(self) -> bool:
        """Whether all three are within their tolerance; false if the tensor or its gradient is 0."""
        return (
            self.radial <= RADIAL_TOLERANCE
            and self.loss_change <= RADIAL_TOLERANCE
            and self.gradient_change <= GRADIENT_TOLERANCE
        )


def invariance(
    model: nn.Module, loss_fn: Callable[[nn.Module, Any], Tensor], batch: Any, views: Iterable[TensorView]
) -> dict[str, Defect]:
    """Measure the defects of scale invariance of a model's tensors.

    By Euler's identity <g,w> = 0 for such a loss (van Laarhoven, arXiv 1706.05350; Arora et al., arXiv 1812.03981).
    It is tested at the present weights only: a gain in front of a bias that is still 0 may pass.

    Works on a copy with dropout off and BatchNorm on the batch's own statistics: the model's mode, buffers, gradients
    and the random number generators stay as they are. Costs one gradient, and one more for each tensor.

    Args:
        model: Any module with real parameters.
        loss_fn: Scalar loss of (model, batch).
        batch: Given to `loss_fn`.
        views: The tensors, as from `empirics.tensors.tensors(model)`.

    Returns:
        The defects by the views' names.

    Raises:
        InputError: If the batch is empty or changed in place, the loss not a differentiable scalar, or the model on the
            meta device.

    Example:
        >>> from empirics.tensors import tensors
        >>> model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.LayerNorm(3, eps=1e-30), nn.Linear(3, 1))
        >>> defects = invariance(model, lambda m, x: m(x).exp().mean(), torch.randn(8, 4), tensors(model))
        >>> [name for name, defect in defects.items() if defect.is_invariant]
        ['0.weight']
    """
    check_batch(batch)
    for name, tensor in model.named_parameters():
        require(not tensor.is_meta, f"device of {name!r}", "meta", "a device that holds values")
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    views = tuple(views)
    parameters = {view.parameter_name: twin.get_parameter(view.parameter_name) for view in views}

    def gradient(*wanted: Tensor) -> tuple[Tensor, list[Tensor]]:
        with unchanged(batch):
            loss = check_loss(loss_fn(twin, batch))
        with explained():
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        return loss.detach().double(), [g.double() for g in gradients]

    loss, gradients = gradient(*parameters.values())
    gradient_of = dict(zip(parameters, gradients, strict=True))
    defects = {}
    for view in views:
        parameter, g = parameters[view.parameter_name], view.of(gradient_of[view.parameter_name])
        w = view.of(parameter.detach())
        radial = (g * w).sum().abs() / (g.norm() * w.double().norm())
        w.mul_(2)
        doubled_loss, (doubled,) = gradient(parameter)
        w.mul_(0.5)  # exact: a power of two
        loss_change = (doubled_loss - loss).abs() / loss.abs()
        gradient_change = (2 * view.of(doubled) - g).norm() / g.norm()
        defects[view.name] = Defect(radial.item(), loss_change.item(), gradient_change.item())
    return defects
