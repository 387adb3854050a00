"""From a live optimizer to theory's specification of it."""

from __future__ import annotations

from typing import Any

import torch

from empirics import scale_free
from theory.errors import InputError
from theory.optimizers import (
    SGD,
    Adam,
    AdamW,
    Hyperball,
    Lion,
    Muon,
    NormalizedMomentum,
    Optimizer,
    Signum,
)


def law_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> Optimizer:
    """The specification of one parameter group, at its present rates.

    Args:
        optimizer: The live optimizer.
        group: One of its groups.

    Returns:
        The specification.

    Raises:
        InputError: If theory has no law for it, with the reason.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5, momentum=0.9)
        >>> law_of(optimizer, optimizer.param_groups[0]).momentum
        0.9
    """
    for flag in ("amsgrad", "maximize"):
        if group.get(flag):
            raise InputError(f"theory has no law for {flag} = True")
    lr, decay = float(group["lr"]), float(group.get("weight_decay", 0.0))
    betas = tuple(float(beta) for beta in group.get("betas", ()))
    if isinstance(optimizer, torch.optim.SGD):
        return SGD(lr, float(group["momentum"]), group["dampening"], decay, group["nesterov"])
    if isinstance(optimizer, torch.optim.AdamW) or (
        isinstance(optimizer, torch.optim.Adam) and group.get("decoupled_weight_decay")
    ):
        return AdamW(lr, (betas[0], betas[1]), group["eps"], decay)
    if isinstance(optimizer, torch.optim.Adam):
        return Adam(lr, (betas[0], betas[1]), group["eps"], decay)
    if isinstance(optimizer, torch.optim.Muon):
        keys = ("momentum", "nesterov", "ns_steps", "adjust_lr_fn")
        return Muon(lr, decay, **{key: group[key] for key in keys})
    if isinstance(optimizer, scale_free.Lion):
        return Lion(lr, (betas[0], betas[1]), decay)
    if isinstance(optimizer, scale_free.Hyperball):
        return Hyperball(lr, group["momentum"])
    if isinstance(optimizer, scale_free.NormalizedMomentum):
        return NormalizedMomentum(lr, group["momentum"], decay)
    if isinstance(optimizer, scale_free.Signum):
        return Signum(lr, group["momentum"], decay)
    raise InputError(f"theory has no law for {type(optimizer).__name__}")
