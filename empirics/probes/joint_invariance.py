"""Does the loss ignore the scale of several tensors changed together? Q up and K down, or a whole stack at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from empirics.probes.invariance import Defect
from empirics.tensors import TensorView
from theory.errors import finite, require

Exponents = Mapping[str, float]


def joint_invariance(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    views: Iterable[TensorView],
    *,
    groups: Mapping[str, Exponents],
) -> dict[str, Defect]:
    """Measure how far the loss is from f(s^a1 w1, s^a2 w2, ...) = f(w1, w2, ...), for groups of tensors.

    With exponents 1 and 1 two tensors are scaled alike; with 1 and -1 one grows as the other shrinks, which attention
    without QK-norm ignores exactly for Q and K. Derivatives at s = 1 give the defects (Euler's identity for the group;
    Kunin et al., arXiv 2012.04728):

    - radial: |sum_i a_i <g_i, w_i>| / (||g|| ||(a_1 w_1, a_2 w_2, ...)||), with ||g|| over the group;
    - loss_change: |f(s = 2) - f| / |f|;
    - gradient_change: ||(2^a_i g_i(s = 2) - g_i)_i|| / ||g||.

    Tolerances are those of `invariance`, of which a group of one tensor with exponent 1 is the special case.

    Works on a copy with dropout off and BatchNorm on the batch's own statistics: the model's mode, buffers, gradients
    and the random number generators stay as they are. Costs one gradient, and one more for each group.

    Args:
        model: Any module with real parameters.
        loss_fn: Scalar loss of (model, batch).
        batch: Given to `loss_fn`.
        views: The tensors, as from `empirics.tensors.tensors(model)`.
        groups: Of each group, the exponents by the views' names; see `attention_groups`.

    Returns:
        The defects by the groups' names.

    Raises:
        InputError: If a group is empty or names no view, or an exponent is 0 or not finite.

    Example:
        >>> from empirics.models import GPT2Config
        >>> from empirics.tensors import tensors
        >>> model = GPT2Config(vocab_size=64, block_size=8, n_layer=1, n_head=2, n_embd=16).build(seed=0)
        >>> views, batch = tensors(model), 2 * (torch.arange(16).view(2, 8),)
        >>> groups = attention_groups(views)
        >>> defects = joint_invariance(model, lambda m, b: m.loss(*b), batch, views, groups=groups)
        >>> [(name, defect.is_invariant) for name, defect in defects.items()]
        [('transformer.h.0.attn.c_attn.q*k', False), ('transformer.h.0.attn.c_attn.q/k', True)]
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    by_name = {view.name: view for view in views}
    for name, exponents in groups.items():
        require(len(exponents) > 0, f"groups[{name!r}]", exponents, "at least one tensor")
        for tensor, exponent in exponents.items():
            require(tensor in by_name, f"groups[{name!r}]", tensor, "names of the views")
            require(finite("exponent", exponent, low=-64, high=64) != 0, "exponent", exponent, "different from 0")

    def gradient(members: list[TensorView]) -> tuple[Tensor, list[Tensor]]:
        parameters = {view.parameter_name: twin.get_parameter(view.parameter_name) for view in members}
        loss = loss_fn(twin, batch)
        gradients = torch.autograd.grad(loss, [*parameters.values()], allow_unused=True, materialize_grads=True)
        found = dict(zip(parameters, gradients, strict=True))
        return loss.detach().double(), [view.of(found[view.parameter_name]).double() for view in members]

    everywhere = [by_name[tensor] for tensor in {tensor: None for each in groups.values() for tensor in each}]
    loss, gradients = gradient(everywhere)
    gradient_of = {view.name: g for view, g in zip(everywhere, gradients, strict=True)}
    defects = {}
    for name, exponents in groups.items():
        members, powers = [by_name[tensor] for tensor in exponents], list(exponents.values())
        weights = [view.of(twin.get_parameter(view.parameter_name).detach()) for view in members]
        before = [w.clone() for w in weights]
        direction = flat([a * w.double() for a, w in zip(powers, weights, strict=True)])
        g = flat([gradient_of[tensor] for tensor in exponents])
        for a, w in zip(powers, weights, strict=True):
            w.mul_(2.0**a)
        scaled_loss, scaled = gradient(members)
        for w, old in zip(weights, before, strict=True):
            w.copy_(old)
        back = flat([2.0**a * new for a, new in zip(powers, scaled, strict=True)])
        radial = (g @ direction).abs() / (g.norm() * direction.norm())
        loss_change = (scaled_loss - loss).abs() / loss.abs()
        defects[name] = Defect(radial.item(), loss_change.item(), ((back - g).norm() / g.norm()).item())
    return defects


def attention_groups(views: Iterable[TensorView]) -> dict[str, dict[str, float]]:
    """Q and K of every attention, with their biases: scaled alike ("<module>.q*k") and against each other ("...q/k").

    Args:
        views: As from `empirics.tensors.tensors(model)`; only fused projections that were taken apart are found.

    Returns:
        Groups for `joint_invariance`.
    """
    names: dict[str, list[str]] = {}
    for view in views:
        if view.dim is not None and view.name.endswith((".q", ".k")):
            names.setdefault(view.parameter_name.rpartition(".")[0], []).append(view.name)
    groups = {}
    for module, members in names.items():
        for sign, power in (("*", 1.0), ("/", -1.0)):
            groups[f"{module}.q{sign}k".lstrip(".")] = {name: 1.0 if name.endswith(".q") else power for name in members}
    return groups


def flat(parts: list[Tensor]) -> Tensor:
    """Several tensors as one vector."""
    return torch.cat([part.reshape(-1) for part in parts])
