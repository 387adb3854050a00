"""SGD with coupled decay is SGD without decay on a growing learning rate, momentum and dampening included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.equivalence.run import SMALLEST, TwinRun, outgrown, rates_and_decays
from theory.errors import InputError, finite


@dataclass(frozen=True)
class SgdExponential:
    """Constants of the exponential twin of SGD at constant learning rate."""

    alpha: float
    """Factor by which decay shrinks the weights a step: w_t = alpha^t W_t; the twin's lr_t = lr * alpha^(-2t-1)."""
    buffer_coefficient: float
    """The twin's momentum buffer before step 0, as a multiple of the initial weights (0 without momentum)."""


def slow_root(lr: float, weight_decay: float, momentum: float) -> tuple[float, float]:
    """One minus the larger root of x^2 - (1+mu-lr*wd)x + mu, and that difference over lr, both without cancellation.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient.
        momentum: Heavy-ball coefficient in [0, 1).

    Returns:
        1 - alpha and (1 - alpha)/lr (its limit if lr = 0).

    Raises:
        InputError: If the roots are not real and positive.

    Example:
        >>> slow_root(0.5, 0.5, 0.0)
        (0.25, 0.5)
    """
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    root = math.sqrt(finite("momentum", momentum, high=1.0))
    limit = (1 - root) ** 2
    if shrink > limit * (1 + 1e-12) or shrink >= 1:
        raise InputError(
            f"lr * weight_decay = {shrink:g} is not allowed: it must be at most (1 - sqrt(momentum))^2 = {limit:g} and "
            "below 1, or the weights oscillate through zero and no real exponential twin exists."
        )
    spread = math.sqrt(max(limit - shrink, 0.0) * ((1 + root) ** 2 - shrink))
    per_lr = 2 * weight_decay / ((1 - momentum + shrink) + spread)
    return lr * per_lr, per_lr


def sgd_exponential_lr(lr: float, weight_decay: float, momentum: float = 0.0) -> SgdExponential:
    """Exponential learning rate that replaces decay in torch.optim.SGD at constant rate, scale-invariant weights.

    Setting: f(sw) = f(w), heavy ball without dampening, coupled decay, empty buffer. SGD(lr, mu, wd) from w_0 and
    SGD(lr * alpha^(-2t-1), mu, wd = 0) from w_0 with momentum buffer rho_b * w_0 give w_t = alpha^t W_t, t = 0, 1, ..:
    alpha is the larger root of x^2 - (1+mu-lr*wd)x + mu and rho_b = (alpha-1+lr*wd)/(mu*lr) = -(1-alpha)/(lr*alpha).
    With momentum the buffer is needed: from torch's empty buffer a pure exponential is another run (1 - cos of 0.1 to
    0.6 after 400 steps); `sgd_exponential_schedule` needs none.

    Source: Li & Arora, arXiv 1910.07454; buffer derived here. Valid for lr*wd <= (1-sqrt(mu))^2; not for Nesterov,
    where three coefficients cannot be matched. Accuracy: exact (directions 1e-8, norms 1e-9).

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient; lr*weight_decay <= (1-sqrt(momentum))^2.
        momentum: Heavy-ball coefficient in [0, 1), dimensionless.

    Returns:
        alpha and the buffer coefficient, dimensionless and 1/lr.

    Raises:
        InputError: If an input is out of range or no real twin exists.

    Example:
        >>> round(sgd_exponential_lr(0.05, 0.02, momentum=0.9).alpha, 9)
        0.988873214
    """
    lost, per_lr = slow_root(lr, weight_decay, momentum)
    return SgdExponential(alpha=1 - lost, buffer_coefficient=-per_lr / (1 - lost) if momentum and per_lr else 0.0)


def sgd_exponential_schedule(
    lrs: ArrayLike, weight_decay: ArrayLike, momentum: float = 0.0, dampening: float = 0.0
) -> TwinRun:
    """Learning rates that replace decay in torch.optim.SGD under any schedule, from an empty buffer.

    Setting: scale-invariant weights, coupled decay, heavy ball. Let P_t be the run of a single weight from P_0 = 1
    under decay alone (zero gradient): y_t = mu*y_{t-1} + kappa*wd_t*P_t, P_{t+1} = P_t - lr_t*y_t, with
    kappa = 1 - dampening (1 in the first step, as in torch). SGD without decay, same momentum and dampening, empty
    buffer, at lr'_t = lr_t/(P_t P_{t+1}) has W_t = w_t/P_t. With m_t = mu*lr_t/lr_{t-1} and alpha_t = P_{t+1}/P_t this
    is alpha_t = 1 + m_t - kappa*lr_t*wd_t - m_t/alpha_{t-1}; in terms of y a step with lr = 0 is no exception.

    Source: derived here; constant rate Li & Arora, arXiv 1910.07454, to which alpha_t converges like (mu/alpha^2)^t.
    Not for Nesterov. Accuracy: exact (directions 1e-8, norms 1e-9).

    Args:
        lrs: Learning rate of each step, shape (T,).
        weight_decay: L2 coefficient, or one per step, shape (T,).
        momentum: Heavy-ball coefficient in [0, 1), dimensionless.
        dampening: Dampening in [0, 1], dimensionless; ignored without momentum, as in torch.

    Returns:
        The twin's learning rates and P_{t+1} = ||w||/||W|| after each step.

    Raises:
        InputError: If an input is out of range, or decay carries the weights through zero at some step.

    Example:
        >>> sgd_exponential_schedule([0.1, 0.1], 1.0).norm_ratio.round(3).tolist()
        [0.9, 0.81]
    """
    finite("momentum", momentum, high=1.0)
    finite("dampening", dampening, high=1.0, open_high=False)
    rates, decays = rates_and_decays(lrs, weight_decay)
    sizes, buffer = [1.0], 0.0
    for step, (lr, wd) in enumerate(zip(rates.tolist(), decays.tolist(), strict=True)):
        kappa = 1.0 if step == 0 or momentum == 0 else 1 - dampening
        buffer = momentum * buffer + kappa * wd * sizes[-1]
        sizes.append(sizes[-1] - lr * buffer)
        if sizes[-1] <= 0:
            raise InputError(
                f"no real twin exists: decay alone carries the weights through zero at step {step} "
                f"(lr * weight_decay = {lr * wd:g}, momentum = {momentum:g}); it must be weaker there."
            )
        if sizes[-1] < SMALLEST:
            raise outgrown(step)
    size = np.asarray(sizes)
    return TwinRun(lr=rates / size[:-1] / size[1:], betas=None, eps=None, initial_buffer=None, norm_ratio=size[1:])
