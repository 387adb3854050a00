# pyright: reportPrivateImportUsage=false
"""From theory's optimizers to torch's: parameter groups, rates of each step, gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from empirics import scale_free
from theory import optimizers as spec
from theory.errors import require
from theory.optimizers import Decay

DecayedTensors = Literal["matrices", "all"]


def build_optimizer(
    optimizer: spec.Optimizer, model: nn.Module, *, decayed: DecayedTensors = "matrices"
) -> torch.optim.Optimizer:
    """Build the torch optimizer that a specification describes, in its fused form.

    Args:
        optimizer: The specification.
        model: Its trainable parameters are optimized, each in exactly one group.
        decayed: Which parameters weight decay acts on: those with two or more dimensions (nanoGPT's rule), or all.

    Returns:
        The optimizer, with groups of decayed and undecayed parameters, at the peak learning rate.

    Raises:
        InputError: If torch has no such optimizer.

    Example:
        >>> groups = build_optimizer(spec.AdamW(lr=0.1), nn.Linear(2, 2)).param_groups
        >>> [(group["decayed"], group["weight_decay"]) for group in groups]
        [(True, 0.01), (False, 0.0)]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    chosen = [p for p in parameters if decayed == "all" or p.dim() >= 2]
    rest = [p for p in parameters if decayed != "all" and p.dim() < 2]
    groups = [{"params": part, "decayed": part is chosen} for part in (chosen, rest) if part]
    match optimizer:
        case spec.SGD(lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov):
            built = torch.optim.SGD(
                groups, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, fused=True
            )
        case spec.Adam(lr=lr, betas=betas, eps=eps):
            built = torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, fused=True)
        case spec.AdamW(lr=lr, betas=betas, eps=eps):
            built = torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
        case spec.Lion(lr=lr, betas=betas):
            built = scale_free.Lion(groups, lr=lr, betas=betas)
        case spec.Signum(lr=lr, momentum=momentum):
            built = scale_free.Signum(groups, lr=lr, momentum=momentum)
        case spec.NormalizedMomentum(lr=lr, momentum=momentum):
            built = scale_free.NormalizedMomentum(groups, lr=lr, momentum=momentum)
        case spec.Hyperball(lr=lr, momentum=momentum):
            built = scale_free.Hyperball(groups, lr=lr, momentum=momentum)
        case spec.Muon(lr=lr, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust):
            require(ns_steps is not None, "optimizer.ns_steps", ns_steps, "a number to be trained with")
            assert ns_steps is not None
            others = [tuple(p.shape) for p in parameters if p.dim() != 2]
            require(not others, "optimizer", f"Muon with tensors of shape {others[:2]}", "one for matrices only")
            built = torch.optim.Muon(
                groups, lr=lr, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust
            )
    set_rates(built, optimizer, 1.0)
    return built


def set_rates(built: torch.optim.Optimizer, optimizer: spec.Optimizer, shape: float) -> None:
    """Set learning rate and decay of every group for one step.

    torch's own coefficient is multiplied by the learning rate; the other conventions are put in those terms.

    Args:
        built: What `build_optimizer` built, from
        optimizer: this specification.
        shape: The schedule's multiplier of the peak rate at this step.
    """
    decay = optimizer.weight_decay
    if optimizer.decay is Decay.NONE:
        decay = 0.0
    elif optimizer.decay is Decay.INDEPENDENT:
        decay /= optimizer.lr
    elif optimizer.decay is Decay.CORRECTED:
        decay *= shape
    for group in built.param_groups:
        group["lr"] = optimizer.lr * shape
        group["weight_decay"] = decay if group["decayed"] else 0.0


def check(optimizer: spec.Optimizer) -> None:
    """Raise `InputError` if the decay convention cannot be run on torch's optimizers."""
    runnable = (Decay.NONE, Decay.COUPLED, Decay.DECOUPLED, Decay.INDEPENDENT, Decay.CORRECTED)
    names = ", ".join(decay.value for decay in runnable)
    require(optimizer.decay in runnable, "optimizer.decay", optimizer.decay.value, f"one of {names} to be trained with")
    zero = optimizer.decay is Decay.INDEPENDENT and optimizer.lr == 0
    require(not zero, "optimizer.lr", optimizer.lr, "positive under independent decay")


@torch.no_grad()
def clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients down together if their total norm exceeds a limit.

    torch.nn.utils.clip_grad_norm_ in three foreach calls, several times faster on a CPU.

    Args:
        parameters: Those without a gradient are ignored.
        limit: Largest total norm, > 0.

    Returns:
        The total norm before clipping, a scalar on the device.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, torch.clamp(limit / (total + 1e-6), max=1.0))
    return total
