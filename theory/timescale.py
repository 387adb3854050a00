"""The EMA view of weight decay: how long weights remember their updates, and their own direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.equilibrium.decoupled import shrink_factor
from theory.errors import InputError, finite, require, whole
from theory.results import Array
from theory.trajectory.rates import Rates, learning_rates


@dataclass(frozen=True)
class Timescale:
    """Memory of the weights, in three units."""

    steps: float
    """tau = 1/(lr*weight_decay), steps."""
    epochs: float
    """tau * batch_size/dataset_size, passes over the data."""
    fraction_of_run: float
    """tau/steps of the run, dimensionless."""


def timescale(
    lr: float,
    weight_decay: float,
    batch_size: float,
    dataset_size: float,
    steps: int,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
) -> Timescale:
    """Memory of decayed weights: w is an exponential moving average of -u/wd over tau = 1/(lr*wd) steps.

    w_{t+1} = (1-lr*wd) w_t + lr*wd (-u_t/wd). For coupled SGD give momentum and dampening:
    tau = (1-mu)/(lr*wd*(1-dampening)); for every decoupled optimizer leave them 0, its momentum does not enter.

    Source: Wang & Aitchison, arXiv 2405.13698. Exact (a definition); SGD with momentum: long-run shrink per step.

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; lr*weight_decay > 0.
        batch_size: Samples (or tokens) per step.
        dataset_size: Samples (or tokens) in the data, same unit.
        steps: Length of the run, steps.
        momentum: Of coupled SGD, in [0, 1).
        dampening: Of coupled SGD, in [0, 1).

    Returns:
        tau in steps, in epochs, and as a fraction of the run.

    Raises:
        InputError: If lr*weight_decay is not positive, or a size is not.

    Example:
        >>> timescale(1e-3, 0.1, batch_size=128, dataset_size=50_000, steps=78_200).epochs
        25.6
    """
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink > 0, "lr * weight_decay", shrink, "positive: without decay the weights forget nothing")
    for field, value in (("batch_size", batch_size), ("dataset_size", dataset_size)):
        require(finite(field, value) > 0, field, value, "positive")
    whole("steps", steps, low=1)
    kappa = 1 - finite("dampening", dampening, high=1.0) if momentum else 1.0
    tau = (1 - finite("momentum", momentum, high=1.0)) / (shrink * kappa)
    return Timescale(steps=tau, epochs=tau * batch_size / dataset_size, fraction_of_run=tau / steps)


@dataclass(frozen=True)
class EmaWeights:
    """How much of the final weights each step wrote."""

    total: float
    """Weights of all steps and of the initialisation: 1."""
    initial: float
    """What is left of the initial weights, a fraction."""
    n_eff: float
    """Steps effectively averaged, (sum c)^2/sum c^2; 0 where nothing decays."""
    mean_age: float
    """Mean age of what the final weights hold, steps; 0 where nothing decays."""
    weight: Array
    """c_t, weight of -u_t/wd_t of step t in the final weights, shape (steps,)."""


def ema_weights(schedule: Rates, weight_decay: ArrayLike) -> EmaWeights:
    """Weights c_t with which each step's -u_t/wd_t enters the final weights, decoupled decay, any schedule.

    c_t = lr_t wd_t prod_{s>t} (1 - lr_s wd_s) and initial = prod (1 - lr_s wd_s); they sum to 1. Constant rates over a
    long run: n_eff = (2-lr*wd)/(lr*wd). A linear decay to zero triples n_eff at the same peak: averaging for free.

    Source: Wang & Aitchison, arXiv 2405.13698; schedules derived here. Exact.

    Args:
        schedule: Learning rates, or a mapping with `kind`, `peak`, `steps` (see `learning_rates`).
        weight_decay: Decay coefficient, or one per step, shape (steps,).

    Returns:
        Total, initial share, effective number of steps, mean age (steps), and c_t.

    Raises:
        InputError: If lr*weight_decay of a step is not in [0, 1).

    Example:
        >>> round(ema_weights({"kind": "constant", "peak": 0.01, "steps": 4_000}, 0.2).n_eff)
        998
    """
    rates, decay = learning_rates(schedule), np.asarray(weight_decay, dtype=np.float64)
    require(decay.shape in ((), rates.shape), "weight_decay", decay.shape, f"a number or of shape {rates.shape}")
    shrink = rates * decay
    if not np.all((shrink >= 0) & (shrink < 1)):
        raise InputError("lr * weight_decay is not allowed: it must be in [0, 1) at every step.")
    survival = np.exp(np.cumsum(np.log1p(-shrink)[::-1])[::-1])  # of what is there before step t
    weight = shrink * np.append(survival[1:], 1.0)
    written, squares = float(weight.sum()), float(weight @ weight)
    age = float(weight @ np.arange(len(weight) - 1, -1, -1.0))
    return EmaWeights(
        total=written + float(survival[0]),
        initial=float(survival[0]),
        n_eff=written**2 / squares if squares > 0 else 0.0,
        mean_age=age / written if written > 0 else 0.0,
        weight=weight,
    )


@dataclass(frozen=True)
class Autocorrelation:
    """Mean cosine between weights some steps apart."""

    lags: NDArray[np.int64]
    """Steps apart, shape (n,)."""
    cos: Array
    """E cos angle(w_t, w_{t+lag}), shape (n,)."""


def _geometric(a: float, beta: float, k: Array) -> Array:
    """(a^(k+1) - beta^(k+1))/(a - beta) for k >= 0, without cancellation where a and beta are close."""
    high, low = max(a, beta), min(a, beta)
    gap = (high - low) / high
    if gap == 0:
        return (k + 1) * high**k
    if gap == 1:
        return high**k
    return high**k * -np.expm1((k + 1) * np.log1p(-gap)) / gap


def direction_autocorrelation(lr: float, weight_decay: float, momentum: float, lags: ArrayLike) -> Autocorrelation:
    """Mean cosine between the weights of two steps in equilibrium: memory of direction lasts tau = 1/(lr*wd).

    Setting: EMA (or normalised) momentum with decoupled decay, white noise. With a = 1-lr*wd and beta the momentum
    cos_k = [a^(k+1)(1-beta^2) - beta^(k+1)(1-a^2)]/[(a-beta)(1+a*beta)]
          = [S_k - a^2 beta^2 S_{k-2}]/(1+a*beta),  S_k = (a^(k+1)-beta^(k+1))/(a-beta),
    the autocorrelation of an AR(2) with roots a and beta; the second form has no singularity at a = beta.

    Source: derived here. Exact for the linear recursion; against simulations 2.5 % (sampling at small cos).

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        momentum: beta in [0, 1), dimensionless.
        lags: Steps apart, whole numbers >= 0, any number of them.

    Returns:
        The lags and their cosines.

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or a lag is not a whole number >= 0.

    Example:
        >>> direction_autocorrelation(0.1, 0.2, 0.9, [0, 1, 100]).cos.round(4).tolist()
        [1.0, 0.9989, 0.164]
    """
    a, beta = shrink_factor(lr, weight_decay), finite("momentum", momentum, high=1.0)
    k = np.atleast_1d(np.asarray(lags, dtype=np.float64))
    whole_lags = bool(np.all(np.isfinite(k)) and np.all(k >= 0) and np.all(k == np.floor(k)))
    require(whole_lags and k.ndim == 1, "lags", lags, "a sequence of whole numbers >= 0")
    older = np.where(k >= 2, _geometric(a, beta, np.maximum(k - 2, 0)), 0.0)
    cos = (_geometric(a, beta, k) - (a * beta) ** 2 * older) / (1 + a * beta)
    return Autocorrelation(k.astype(np.int64), np.where(k == 0, 1.0, cos))
