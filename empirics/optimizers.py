# pyright: reportPrivateImportUsage=false
"""From theory's optimizers to torch's: parameter groups, rates of each step, gradient clipping."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from empirics import scale_free
from empirics.grouping import audit, grouped, rule
from empirics.joint import Cautious, Joint
from empirics.probes.products import is_sharded
from theory import optimizers as spec
from theory.errors import require
from theory.optimizers import Decay


def build_optimizer(
    optimizer: spec.Optimizer,
    model: nn.Module,
    *,
    decayed: str | Sequence[str] = "matrices",
    others: spec.AdamW | None = None,
    apart: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Build the torch optimizer that a specification describes, in its fused form.

    Args:
        optimizer: The specification.
        model: Its trainable parameters are optimized, each in exactly one group.
        decayed: Which parameters weight decay acts on, as in `empirics.grouping.spelled`: those with two or more
            dimensions (nanoGPT's rule), all, or those with certain names.
        others: With Muon, the optimizer of what is no hidden matrix: embeddings (and a head tied to one), gains,
            biases, convolutions.
        apart: Names of parameters that get a group of their own.

    Returns:
        The optimizer, with groups of decayed and undecayed parameters, at the peak learning rate.

    Raises:
        InputError: If torch has no such optimizer, or `decayed` does not fit the model.

    Example:
        >>> groups = build_optimizer(spec.AdamW(lr=0.1), nn.Linear(2, 2)).param_groups
        >>> [(group["decayed"], group["weight_decay"]) for group in groups]
        [(True, 0.01), (False, 0.0)]
    """
    decays = rule(decayed, model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if isinstance(optimizer, spec.Muon):
        hidden = hidden_matrices(model)
        rest = {name: p for name, p in parameters.items() if name not in hidden}
        if others is None:
            hidden, rest = parameters, {}
            odd = [tuple(p.shape) for p in parameters.values() if p.dim() != 2]
            require(not odd, "optimizer", f"Muon with tensors of shape {odd[:2]}", "one for matrices, or have `others`")
        parts = [_muon(optimizer, grouped(hidden, decays, apart=apart))]
        if others is not None and rest:
            parts.append(_build(others, grouped(rest, decays, apart=apart)))
        built: torch.optim.Optimizer = Joint(parts)
    else:
        require(others is None, "others", others, "None unless the optimizer is Muon")
        built = _build(optimizer, grouped(parameters, decays, apart=apart))
    audit(model, built.param_groups)
    for part, each in _parts(built, optimizer, others):
        for group in part.param_groups:
            group["cautious"] = each.decay is Decay.CAUTIOUS
    if any(group["cautious"] for group in built.param_groups):
        Cautious(built)
    set_rates(built, optimizer, 1.0, others=others)
    return built


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """What Muon is for: trainable matrices that are no embeddings.

    Args:
        model: The model.

    Returns:
        Parameters by name; a head that is tied to an embedding is none.
    """
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    named = model.named_parameters()
    return {name: p for name, p in named if p.requires_grad and p.dim() == 2 and id(p) not in embedded}


def _muon(optimizer: spec.Muon, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    require(optimizer.ns_steps is not None, "optimizer.ns_steps", None, "a number to be trained with")
    require(bool(groups), "optimizer", "Muon", "another one for a model without hidden matrices")
    return torch.optim.Muon(
        [{"decoupled_weight_decay": True, **group} for group in groups],
        lr=optimizer.lr,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        ns_steps=optimizer.ns_steps or 0,
        adjust_lr_fn=optimizer.adjust_lr_fn,
    )


def _build(optimizer: spec.Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    match optimizer:
        case spec.SGD(lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov):
            whole = not any(is_sharded(p) for group in groups for p in group["params"])  # torch fuses no SGD of shards
            return torch.optim.SGD(
                groups, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov, fused=whole
            )
        case spec.Adam(lr=lr, betas=betas, eps=eps):
            return torch.optim.Adam(groups, lr=lr, betas=betas, eps=eps, fused=True)
        case spec.AdamW(lr=lr, betas=betas, eps=eps):
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
        case spec.Lion(lr=lr, betas=betas):
            return scale_free.Lion(groups, lr=lr, betas=betas)
        case spec.Signum(lr=lr, momentum=momentum):
            return scale_free.Signum(groups, lr=lr, momentum=momentum)
        case spec.NormalizedMomentum(lr=lr, momentum=momentum):
            return scale_free.NormalizedMomentum(groups, lr=lr, momentum=momentum)
        case spec.Hyperball(lr=lr, momentum=momentum):
            return scale_free.Hyperball(groups, lr=lr, momentum=momentum)
        case spec.Muon():
            return _muon(optimizer, groups)


def _parts(
    built: torch.optim.Optimizer, optimizer: spec.Optimizer, others: spec.AdamW | None
) -> list[tuple[torch.optim.Optimizer, spec.Optimizer]]:
    """Each torch optimizer with its specification."""
    if isinstance(built, Joint):
        specs = (optimizer, optimizer if others is None else others)
        return list(zip(built.parts, specs[: len(built.parts)], strict=True))
    return [(built, optimizer)]


def set_rates(
    built: torch.optim.Optimizer,
    optimizer: spec.Optimizer,
    shape: float,
    *,
    others: spec.AdamW | None = None,
    decay_shape: float = 1.0,
) -> None:
    """Set learning rate and decay of every group for one step.

    torch's own coefficient is multiplied by the learning rate; the other conventions are put in those terms. Cautious
    decay has the coefficient of decoupled decay: that some coordinates are left out is `empirics.joint.Cautious`'s.

    Args:
        built: What `build_optimizer` built, from
        optimizer: this specification
        shape: The schedule's multiplier of the peak rate at this step.
        others: and this one, if it was given.
        decay_shape: Multiplier of the decay coefficient at this step, for the scheduled convention.
    """
    for part, each in _parts(built, optimizer, others):
        decay = each.weight_decay
        if each.decay is Decay.NONE:
            decay = 0.0
        elif each.decay is Decay.INDEPENDENT:
            decay /= each.lr
        elif each.decay is Decay.CORRECTED:
            decay *= shape
        elif each.decay is Decay.SCHEDULED:
            decay *= decay_shape
        for group in part.param_groups:
            group["lr"] = each.lr * shape
            group["weight_decay"] = decay if group["decayed"] else 0.0


def check(optimizer: spec.Optimizer) -> None:
    """Raise `InputError` if independent decay cannot be put in torch's terms."""
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
