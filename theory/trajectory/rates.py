"""From a schedule, in any of its spellings, to one learning rate per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Schedule, WarmupStableDecay

Array = NDArray[np.float64]
Rates = Mapping[str, Any] | Sequence[float] | Array


def learning_rates(schedule: Rates, field: str = "schedule") -> Array:
    """Learning rate at t = 0 .. steps-1.

    Args:
        schedule: The rates themselves, or a mapping with `kind` (constant, linear, cosine, invsqrt, wsd), `peak`,
            `steps`
            and the kind's own parameters (`warmup`, `final`, `decay`).
        field: What errors call it.

    Returns:
        Rates, shape (steps,).

    Raises:
        InputError: If the kind is unknown or a rate is negative or not finite.

    Example:
        >>> learning_rates({"kind": "linear", "peak": 1.0, "steps": 4}).tolist()
        [1.0, 0.75, 0.5, 0.25]
    """
    if isinstance(schedule, Mapping):
        return _from_mapping(dict(schedule))
    rates = numbers(field, schedule)
    if rates.ndim != 1 or len(rates) == 0 or not np.all(np.isfinite(rates)) or np.any(rates < 0):
        raise InputError(f"{field} is not allowed: it must be a non-empty sequence of finite rates >= 0.")
    return rates


def decay_rates(weight_decay: float | ArrayLike, lr: Array) -> Array:
    """Decay coefficient of every step.

    Args:
        weight_decay: A number, or one per step.
        lr: Learning rates, shape (T,).

    Returns:
        Coefficients, shape (T,).

    Raises:
        InputError: If one is negative or not finite, or their number is not T.

    Example:
        >>> decay_rates(0.1, np.ones(2)).tolist()
        [0.1, 0.1]
    """
    decays = numbers("weight_decay", weight_decay)
    fits = decays.ndim == 0 or decays.shape == lr.shape
    ok = fits and bool(np.all(np.isfinite(decays)) and np.all(decays >= 0))
    require(ok, "weight_decay", weight_decay, "a finite number >= 0, or one for each step")
    return np.broadcast_to(decays, lr.shape)


def reported(steps: Sequence[int] | None, count: int) -> NDArray[np.int64]:
    """Steps that a trajectory reports.

    Args:
        steps: Step indices; all if None.
        count: Length of the run.

    Returns:
        Step indices.

    Raises:
        InputError: If one lies outside the run.

    Example:
        >>> reported(None, 3).tolist()
        [0, 1, 2]
    """
    given = np.arange(count) if steps is None else numbers("steps", steps)
    at = given.astype(np.int64)
    require(bool(np.all(at == given)), "steps", given.tolist()[:3], "whole numbers")
    require(bool(np.all((at >= 0) & (at < count))), "steps", at.tolist()[:3], f"between 0 and {count - 1}")
    return at


def numbers(field: str, values: ArrayLike) -> Array:
    """What was given as float64.

    Args:
        field: What errors call it.
        values: Numbers, any shape.

    Returns:
        The array.

    Raises:
        InputError: If they are not numbers.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{field} = {values!r} is not allowed: it must be numbers, one for each step.") from None


def _from_mapping(spec: dict[str, Any]) -> Array:
    kind, peak, steps = (
        spec.pop("kind", None),
        finite("peak", spec.pop("peak", None)),
        whole("steps", spec.pop("steps", None), low=1),
    )
    kinds: dict[str, type] = {
        "constant": Constant,
        "linear": Linear,
        "cosine": Cosine,
        "invsqrt": InverseSqrt,
        "wsd": WarmupStableDecay,
    }
    if kind not in kinds:
        raise InputError(f"kind = {kind!r} is not allowed: it must be one of {', '.join(kinds)}.")
    try:
        shape: Schedule = kinds[kind](**spec)
    except TypeError:
        raise InputError(f"schedule {kind!r} does not take {', '.join(sorted(spec))}.") from None
    return peak * shape.at(np.arange(steps), steps)
