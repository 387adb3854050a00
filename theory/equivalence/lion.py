"""Lion with decay is Lion without decay on a growing learning rate and shorter memories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.equivalence.run import TwinRun, beta_pair, scales, shrinks
from theory.errors import finite, require
from theory.results import Array


@dataclass(frozen=True)
class LionExponential:
    """Constants of the exponential twin of Lion at constant learning rate."""

    betas: tuple[float, float]
    """The twin's (beta1, beta2), dimensionless."""
    growth: float
    """Factor 1/(1-lr*wd) a step: the twin's lr_t = lr * growth^(t+1), and ||W_t|| = growth^t ||w_t||."""


def lion_twin(lrs: Array, shrink: Array, betas: tuple[float, float]) -> TwinRun:
    """Twin of Lion from learning rates and shrinks; see `lion_exponential_schedule`.

    Args:
        lrs: Learning rate of each step, shape (T,).
        shrink: Fraction by which each step's decay shrinks the weights, in whatever convention, shape (T,).
        betas: Lion's (beta1, beta2); both the momentum for an optimizer that has one.

    Returns:
        The twin.

    Raises:
        InputError: If a shrink is not in [0, 1) or the twin outgrows floating point.

    Example:
        >>> lion_twin(np.ones(2), np.full(2, 0.5), (0.0, 0.0)).lr.tolist()
        [2.0, 4.0]
    """
    b1, b2 = betas
    size = scales(shrink)
    pairs, k = [(b1, b2)], 1.0
    for a in (1 - shrink[:-1]).tolist():
        q, r = a * b2 / ((1 - b2) * k), a * b1 / ((1 - b1) * k)
        pairs.append((r / (1 + r), q / (1 + q)))
        k = 1 / (1 + q) / (1 - b2)
    return TwinRun(lr=lrs / size[1:], betas=np.asarray(pairs), eps=None, initial_buffer=None, norm_ratio=size[1:])


def lion_exponential_lr(lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.99)) -> LionExponential:
    """Betas and growth with which Lion without decay repeats Lion with decay at constant rate.

    Setting: scale-invariant weights; u = sign(b1 m + (1-b1) g), m <- b2 m + (1-b2) g, w <- a w - lr u, a = 1 - lr*wd,
    buffer 0 at the start. Lion(lr a^(-(t+1)), wd = 0, b1', b2') with b2' = a b2 and
    b1'/(1-b1') = b1/(1-b1) * a (1-b2)/(1-a b2) has W_t = a^(-t) w_t: the sign forgets scale, so only the ratio of past
    to present inside it matters. b1 = b2 is Signum: both betas then become a*beta.

    Source: derived here. Exact (directions 1e-8, norms 1e-9).

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; lr*weight_decay < 1.
        betas: Lion's (beta1, beta2), dimensionless, in [0, 1).

    Returns:
        The twin's betas and the growth of its learning rate a step.

    Raises:
        InputError: If an input is out of range.

    Example:
        >>> lion_exponential_lr(0.5, 1.0, (0.5, 0.5)).betas
        (0.25, 0.25)
    """
    b1, b2 = beta_pair(betas)
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    a = 1 - shrink
    past, present = b1 * a * (1 - b2), (1 - b1) * (1 - a * b2)
    return LionExponential(betas=(past / (past + present), a * b2), growth=1 / a)


def lion_exponential_schedule(
    lrs: ArrayLike, weight_decay: ArrayLike, betas: tuple[float, float] = (0.9, 0.99)
) -> TwinRun:
    """Learning rates and betas with which Lion without decay repeats Lion with decay, any schedule.

    Setting as in `lion_exponential_lr`. With a_t = 1 - lr_t*wd_t, A_t = a_1..a_t, gradients of the twin A_{t-1} times
    ours and its buffer M_t = k A_{t-1} m_t: k = 1 and beta' = beta at t = 1; then q = a_{t-1} b2/((1-b2) k),
    r = a_{t-1} b1/((1-b1) k), b2'_t = q/(1+q), b1'_t = r/(1+r), k <- (1-b2'_t)/(1-b2); lr'_t = lr_t/A_t.

    Source: derived here. Exact (directions 1e-8, norms 1e-9), unless a coordinate before the sign is rounding noise.

    Args:
        lrs: Learning rate of each step, shape (T,).
        weight_decay: Decay coefficient, or one per step, shape (T,).
        betas: Lion's (beta1, beta2), dimensionless, in [0, 1).

    Returns:
        Learning rate and betas of each step, and ||w||/||W|| after it.

    Raises:
        InputError: If an input is out of range, lr*weight_decay of a step is not below 1, or the twin outgrows
            floating point.

    Example:
        >>> lion_exponential_schedule([0.5, 0.5], 1.0, (0.5, 0.5)).lr.tolist()
        [1.0, 2.0]
    """
    return lion_twin(*shrinks(lrs, weight_decay), beta_pair(betas))
