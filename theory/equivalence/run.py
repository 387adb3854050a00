"""The twin of a decayed run: what to train with, without decay, to follow the same directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import InputError, finite, require
from theory.results import Array
from theory.trajectory.rates import decay_rates, learning_rates, numbers

SMALLEST = 1e-140
"""Ratio of decayed to undecayed weights at which a twin is given up: its rates go with the ratio's inverse square."""


@dataclass(frozen=True)
class TwinRun:
    """A run without weight decay from the same initial weights whose directions are those of the decayed run.

    Every scale-invariant tensor trained by it points, at every step, where the decayed run's points; every other
    parameter must be trained as before, decay included, or frozen. The twin's weights are 1/norm_ratio times larger and
    its gradients as much smaller: train in float64 where norm_ratio**2 is no longer far above float32's 1e-38.
    """

    lr: Array
    """Learning rate of each step, shape (T,)."""
    betas: Array | None
    """(beta1, beta2) of each step, shape (T, 2); None where the optimizer has none."""
    eps: Array | None
    """Adam's eps of each step, shape (T,); None where the optimizer has none."""
    initial_buffer: float | None
    """Momentum buffer before the first step as a multiple of the initial weights; None: empty, as torch starts."""
    norm_ratio: Array
    """||w||/||W|| after each step, decayed run over twin, shape (T,)."""


def rates_and_decays(lrs: ArrayLike, weight_decay: ArrayLike) -> tuple[Array, Array]:
    """Learning rate and decay coefficient of every step, checked.

    Args:
        lrs: Learning rate of each step, shape (T,).
        weight_decay: Decay coefficient, or one per step, shape (T,).

    Returns:
        Rates and coefficients, each of shape (T,).

    Raises:
        InputError: If a rate or coefficient is negative or not finite, or there is no step.

    Example:
        >>> rates_and_decays([0.5, 0.25], 0.5)[1].tolist()
        [0.5, 0.5]
    """
    rates = learning_rates(numbers("lrs", lrs), "lrs")
    return rates, decay_rates(weight_decay, rates)


def shrinks(lrs: ArrayLike, weight_decay: ArrayLike) -> tuple[Array, Array]:
    """Learning rate and lr*weight_decay of every step.

    Args:
        lrs: Learning rate of each step, shape (T,).
        weight_decay: Decay coefficient, or one per step, shape (T,).

    Returns:
        Rates and shrinks, each of shape (T,).

    Raises:
        InputError: If a rate or coefficient is negative or not finite, or there is no step.

    Example:
        >>> shrinks([0.5, 0.25], 0.5)[1].tolist()
        [0.25, 0.125]
    """
    rates, decays = rates_and_decays(lrs, weight_decay)
    return rates, rates * decays


def scales(shrink: Array) -> Array:
    """Size of the decayed weights over the twin's: A_0 = 1, A_t = prod_{s<t} (1 - shrink_s), decoupled decay.

    Args:
        shrink: lr*weight_decay of each step, in [0, 1), shape (T,).

    Returns:
        A_0 .. A_T, shape (T+1,).

    Raises:
        InputError: If a shrink is not in [0, 1), or the twin outgrows floating point.

    Example:
        >>> scales(np.array([0.5, 0.5])).tolist()
        [1.0, 0.5, 0.25]
    """
    bad = np.flatnonzero(~((shrink >= 0) & (shrink < 1)))
    if len(bad):
        raise InputError(
            f"a decay of {shrink[bad[0]]:g} at step {bad[0]} is not allowed: lr * weight_decay (weight_decay itself if "
            "independent of lr) must be in [0, 1)."
        )
    size = np.append(1.0, np.cumprod(1 - shrink))
    lost = np.flatnonzero(size < SMALLEST)
    if len(lost):
        raise outgrown(int(lost[0]) - 1)
    return size


def outgrown(step: int) -> InputError:
    """The error of a run whose decay the twin can no longer undo in floating point.

    Args:
        step: Where it happens.

    Returns:
        The error, to be raised.
    """
    return InputError(
        f"the twin's weights would be more than {1 / SMALLEST:g} times larger than the decayed ones after step {step}: "
        f"the run must be at most {step} steps long."
    )


def beta_pair(betas: tuple[float, float]) -> tuple[float, float]:
    """Two EMA coefficients, checked.

    Args:
        betas: (beta1, beta2), each in [0, 1).

    Returns:
        The pair as floats.

    Raises:
        InputError: If they are not two numbers in [0, 1).
    """
    pair = isinstance(betas, (tuple, list)) and len(betas) == 2
    require(pair, "betas", betas, "a pair of numbers in [0, 1)")
    return finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0)
