"""AdamW is Adam without decay on growing learning rates, shorter memories and a shrinking eps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theory.equivalence.run import TwinRun, beta_pair, scales, shrinks
from theory.errors import finite
from theory.results import Array


def adamw_twin(lrs: Array, shrink: Array, betas: ArrayLike, eps: float) -> TwinRun:
    """Twin of AdamW from learning rates and shrinks; see `adamw_exponential_lr`.

    Args:
        lrs: Learning rate of each step, shape (T,).
        shrink: Fraction by which each step's decay shrinks the weights, in whatever convention, shape (T,).
        betas: Adam's (beta1, beta2), shape (2,), or those of each step, shape (T, 2).
        eps: Adam's eps.

    Returns:
        The twin.

    Raises:
        InputError: If a shrink is not in [0, 1) or the twin outgrows floating point.

    Example:
        >>> adamw_twin(np.ones(2), np.full(2, 0.5), (0.0, 0.0), 0.0).lr.tolist()
        [2.0, 4.0]
    """
    size, pairs = scales(shrink), np.broadcast_to(np.asarray(betas, dtype=np.float64), (len(lrs), 2)).tolist()
    k1, k2, a = 1.0, 1.0, 1.0
    rows: list[tuple[float, float, float, float]] = []
    for step, (lr, lost, (b1, b2)) in enumerate(zip(lrs.tolist(), shrink.tolist(), pairs, strict=True), start=1):
        if step > 1:
            past1, past2 = a * b1 / (1 - b1), a * a * b2 / (1 - b2)
            # the twin's 1 - beta' over ours: M_t = k1 A_{t-1} m_t, V_t = k2 A_{t-1}^2 v_t
            c1, c2 = past1 / (k1 + past1), past2 / (k2 + past2)
            k1, k2 = k1 / (k1 + past1) / (1 - b1), k2 / (k2 + past2) / (1 - b2)
        else:
            c1, c2 = b1, b2
        first = (1 - c1**step) / (1 - b1**step)
        second = math.sqrt(k2 * (1 - b2**step) / (1 - c2**step))
        rows.append((lr / float(size[step]) * first * second / k1, c1, c2, eps * float(size[step - 1]) * second))
        a = 1 - lost
    table = np.asarray(rows)
    return TwinRun(lr=table[:, 0], betas=table[:, 1:3], eps=table[:, 3], initial_buffer=None, norm_ratio=size[1:])


def adamw_exponential_lr(
    lrs: ArrayLike,
    weight_decay: ArrayLike,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> TwinRun:
    """Learning rates, betas and eps with which Adam without decay repeats AdamW, any schedule.

    Setting: scale-invariant weights, torch.optim.AdamW against torch.optim.Adam(weight_decay=0), bias correction and
    eps included. With a_t = 1 - lr_t*wd_t and A_t = a_1..a_t the twin's weights are W_t = w_t/A_t and its gradients
    A_{t-1} times ours, so its moments must be M_t = k1 A_{t-1} m_t and V_t = k2 A_{t-1}^2 v_t. Matching the weight of
    every past gradient, with q1 = a_{t-1} b1/(1-b1), q2 = a_{t-1}^2 b2/(1-b2) and k = 1, beta' = beta at t = 1:
    b1'_t = q1/(k1+q1), b2'_t = q2/(k2+q2), then k_i = (1-b_i')/(1-b_i), s = sqrt(k2 (1-b2^t)/(1-b2'_t^t)) and
    lr'_t = (lr_t/A_t)(s/k1)(1-b1'_t^t)/(1-b1^t), eps'_t = eps A_{t-1} s.
    At constant rates beta' -> (a b1, a^2 b2): a longer norm needs a shorter memory. Growing the learning rate or
    matching lr/||w|| with the betas left alone is a different run (1 - cos of 0.06 to 0.43 after 400 steps).

    Source: derived here. Exact (directions 1e-8, norms 1e-9); every other parameter must be trained as before. Rounding
    differences grow where training is chaotic, so compare early as well as late.

    Args:
        lrs: Learning rate of each step, shape (T,).
        weight_decay: Decoupled decay coefficient, or one per step, shape (T,).
        betas: Adam's (beta1, beta2), dimensionless, in [0, 1).
        eps: Added to the root of the second moment, unit of the gradient.

    Returns:
        Learning rate, betas and eps of each step (set them before the step), and ||w||/||W|| after it.

    Raises:
        InputError: If an input is out of range, lr*weight_decay of a step is not below 1, or the twin outgrows
            floating point.

    Example:
        >>> twin = adamw_exponential_lr([0.1] * 200, 1.0, (0.9, 0.99))
        >>> twin.betas[-1].round(4).tolist()
        [0.81, 0.8019]
    """
    return adamw_twin(*shrinks(lrs, weight_decay), beta_pair(betas), finite("eps", eps))
