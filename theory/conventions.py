"""From one convention of weight decay to another: the shrink of one step is the only number they share."""

from __future__ import annotations

from dataclasses import dataclass

from theory.errors import InputError, finite, require
from theory.optimizers import Decay


@dataclass(frozen=True)
class ConvertedDecay:
    """A decay coefficient in another convention."""

    value: float
    """The coefficient."""
    shrink: float
    """What both conventions share: the fraction by which a step with zero gradient shrinks the weights."""
    exact: bool
    """Whether the two are the same update at this learning rate, rather than alike in the long run or on average."""


def convert_decay(
    value: float,
    source: str,
    target: str,
    lr: float,
    lr_max: float,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
) -> ConvertedDecay:
    """Decay coefficient that shrinks the weights equally in another convention, at one learning rate.

    Shrink per step: decoupled and scheduled lr*value; independent value itself (of that very step: where it follows the
    schedule, that is the coefficient times lr/lr_max); corrected lr^2*value/lr_max; coupled, of SGD, lr*value times
    (1-dampening)/(1-momentum) in the long run; cautious lr*value/2 on average. Coupled and decoupled decay are the same
    update for plain SGD; with momentum they agree in the long run only. Adam's coupled decay has no counterpart,
    because it is divided by each coordinate's gradient size.

    Source: a definition; independent Loshchilov & Hutter, arXiv 1711.05101; corrected Defazio, arXiv 2506.02285;
    cautious Chen et al., arXiv 2510.12402. Exact (1e-9) at that learning rate only: under a schedule the conventions
    differ at every other step.

    Args:
        value: Coefficient in the source convention.
        source: Convention it is given in, a `Decay` or its name.
        target: Convention wanted.
        lr: Learning rate of the step at which they are to agree.
        lr_max: Peak learning rate; lr <= lr_max.
        momentum: Of SGD, where a convention is coupled; in [0, 1).
        dampening: Of SGD with momentum; in [0, 1).

    Returns:
        The coefficient in the target convention, the shrink that both share, and whether the updates are the same.

    Raises:
        InputError: If an input is out of range, or no coefficient of the target shrinks the weights that much.

    Example:
        >>> convert_decay(0.5, "decoupled", "corrected", lr=0.25, lr_max=0.5).value
        1.0
    """
    finite("value", value)
    finite("lr_max", lr_max)
    finite("lr", lr, high=lr_max, open_high=False)
    finite("momentum", momentum, high=1.0)
    kappa = 1 - finite("dampening", dampening, high=1.0) if momentum else 1.0
    kinds = [_kind("source", source), _kind("target", target)]
    per_unit = {
        Decay.DECOUPLED: lr,
        Decay.SCHEDULED: lr,
        Decay.INDEPENDENT: 1.0,
        Decay.CORRECTED: lr * (lr / lr_max) if lr > 0 else 0.0,
        Decay.COUPLED: lr * kappa / (1 - momentum),
        Decay.CAUTIOUS: lr / 2,
    }
    shrink = value * per_unit[kinds[0]]
    approximate = {Decay.CAUTIOUS} | ({Decay.COUPLED} if momentum else set())
    exact = kinds[0] is kinds[1] or not approximate.intersection(kinds)
    if kinds[0] is kinds[1]:
        return ConvertedDecay(value=float(value), shrink=shrink, exact=True)
    if per_unit[kinds[1]] == 0 and shrink > 0:
        raise InputError(f"lr = {lr:g} is not allowed: it must be positive, or {kinds[1].value} decay cannot shrink.")
    return ConvertedDecay(value=shrink / per_unit[kinds[1]] if shrink > 0 else 0.0, shrink=shrink, exact=exact)


def _kind(field: str, name: str) -> Decay:
    allowed = [kind.value for kind in Decay if kind is not Decay.NONE]
    require(name in allowed, field, getattr(name, "value", name), f"one of {', '.join(allowed)}")
    return Decay(name)
