"""Muon: the arcsine law of matrices, and where orthogonalised momentum settles."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import dst

from theory.equilibrium.decoupled import angle_from_relative_update, shrink_factor
from theory.equilibrium.sign import Correlation, momentum_correlation
from theory.errors import InputError, finite, require, whole
from theory.results import Array, Equilibrium

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""torch.optim.Muon's default coefficients of x, x^3 and x^5."""
_MODES = 2**15 - 1


def newton_schulz(x: Array, steps: int) -> Array:
    """What `steps` Newton-Schulz iterations make of singular values x in [0, 1]."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        x = x * (a + b * x**2 + c * x**4)
    return x


@lru_cache(maxsize=64)
def mode_energies(rows: int, columns: int, ns_steps: int | None) -> Array:
    """Energies A_j^2 of an orthogonalising map in the modes of a rectangular Gaussian matrix.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        ns_steps: Newton-Schulz iterations after division by the Frobenius norm; None for the exact polar factor.

    Returns:
        A_j^2 for degree 2j+1, j = 0, 1, ..., read-only; they sum to E phi^2 under the Marchenko-Pastur law.
    """
    p, q = min(rows, columns), max(rows, columns)
    c = p / q
    t = np.pi * np.arange(1, _MODES + 1) / (_MODES + 1)
    x = np.sqrt((1 - math.sqrt(c)) ** 2 + 4 * math.sqrt(c) * np.cos(t / 2) ** 2)
    phi = np.ones_like(x) if ns_steps is None else newton_schulz(x / math.sqrt(p), ns_steps)
    energies = (dst(phi / x * np.sin(t), type=1) / (_MODES + 1)) ** 2
    total = np.cumsum(energies[::-1])[::-1]  # from each mode on
    kept = energies[: max(1, int(np.searchsorted(-total, -1e-14 * total[0])))].copy()
    kept.flags.writeable = False
    return kept


def adjusted_lr(adjust_lr_fn: str | None, rows: int, columns: int) -> float:
    """Factor by which torch.optim.Muon adjusts the learning rate of a matrix.

    Args:
        adjust_lr_fn: "original" (also None) or "match_rms_adamw".
        rows: Number of rows.
        columns: Number of columns.

    Returns:
        sqrt(max(1, rows/columns)) or 0.2 sqrt(max(rows, columns)).

    Raises:
        InputError: If there is no such adjustment.
    """
    adjustments = {
        "original": math.sqrt(max(1.0, rows / columns)),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
    }
    name = adjust_lr_fn or "original"
    require(name in adjustments, "adjust_lr_fn", adjust_lr_fn, f"None or one of {', '.join(adjustments)}")
    return adjustments[name]


def _shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2:
        raise InputError(f"shape = {tuple(shape)!r} is not allowed: it must be (rows, columns), a matrix.")
    return whole("shape[0]", shape[0], low=1), whole("shape[1]", shape[1], low=1)


def matrix_arcsine(shape: tuple[int, int], rho: ArrayLike) -> Correlation:
    """Correlation of the polar factors of two Gaussian matrices whose entries have correlation rho.

    Setting: G, G' n x m with iid Gaussian entries, p = min(n,m), c = p/max(n,m). E<UV', U'V''>/p =
    sum_j A_j^2 rho^(2j+1), A_j = (2/pi) int_0^pi (1/x) sin((j+1)t) sin(t) dt, x^2 = 1 + c + 2 sqrt(c) cos t: the
    Wick polynomials of a rectangular Gaussian matrix are x U_j(cos t), orthonormal under x^2 Marchenko-Pastur(dx).
    The matrix form of the arcsine law: c -> 0 leaves rho, the square matrix has A_0 = 8/(3 pi).

    Source: derived here (free probability, n, m -> infinity). Accuracy 1 % for rho >= 0.6 and min(n,m) >= 32.

    Args:
        shape: (rows, columns).
        rho: Correlation of the entries, in [-1, 1], any shape.

    Returns:
        Correlation of the polar factors, same shape as rho.

    Raises:
        InputError: If the shape is no matrix's or a correlation lies outside [-1, 1].

    Example:
        >>> round(float(matrix_arcsine((256, 256), 0.9).correlation), 3)
        0.789
    """
    value = np.asarray(rho, dtype=np.float64)
    require(bool(np.all(np.abs(value) <= 1)), "rho", rho, "a correlation in [-1, 1]")
    energies = mode_energies(*_shape(shape), None)
    energies = energies.copy()
    energies[-1] += 1 - energies.sum()  # a polar factor has norm sqrt(p) exactly; what is missing is in high modes
    degree = 2 * np.arange(len(energies)) + 1.0
    return Correlation(((np.abs(value)[..., None] ** degree) @ energies * np.sign(value))[()])


def muon_equilibrium(
    lr: float,
    weight_decay: float,
    shape: tuple[int, int],
    momentum: float = 0.95,
    nesterov: bool = True,
    adjust_lr_fn: str | None = "original",
    ns_steps: int | None = 5,
) -> Equilibrium:
    """Equilibrium of torch.optim.Muon under white Gaussian gradient noise, scale-invariant weights or not.

    Setting: buf <- mu*buf + (1-mu)*g; u = NewtonSchulz((1-mu)*g + mu*buf, or buf); w <- (1-lr*wd)*w - lr*adj*u with
    adj = sqrt(max(1, n/m)) ("original") or 0.2 sqrt(max(n,m)) ("match_rms_adamw"). Entries before orthogonalisation
    have correlation rho_k = r*mu^k (r = 1 without Nesterov), so C_k = p sum_j A_j^2 rho_k^(2j+1) and, summing the lags,
    R = (lr*adj)^2 p sum_j A_j^2 [1 + 2 r^n a mu^n/(1 - a mu^n)]/(1-a^2), n = 2j+1, with the energies A_j^2 of the
    Newton-Schulz polynomial (`mode_energies`).

    Source: Muon, Jordan et al. 2024; equilibrium derived here. Accuracy: norm 0.8 %, angle 0.6 % for min(n,m) >= 32,
    bfloat16 inside Newton-Schulz included.

    Args:
        lr: Learning rate; the decay uses it raw, the update times adj.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        shape: (rows, columns).
        momentum: mu in [0, 1).
        nesterov: Nesterov momentum.
        adjust_lr_fn: "original" (also None, torch's default) or "match_rms_adamw".
        ns_steps: Newton-Schulz iterations, 1 to 10; None for the exact polar factor.

    Returns:
        Norm, rms, angle (rad/step), effective lr (lr/rms) and relaxation time (steps).

    Raises:
        InputError: If there is no equilibrium, or an argument is not torch.optim.Muon's.

    Example:
        >>> round(muon_equilibrium(0.02, 0.1, (64, 64)).angle, 4)
        0.0132
    """
    a, shrink, mu = shrink_factor(lr, weight_decay), lr * weight_decay, finite("momentum", momentum, high=1.0)
    n, m = _shape(shape)
    if ns_steps is not None:
        require(1 <= whole("ns_steps", ns_steps) <= 10, "ns_steps", ns_steps, "None or a whole number from 1 to 10")
    h, ratio = lr * adjusted_lr(adjust_lr_fn, n, m), 1.0
    if nesterov and mu > 0:
        ratio = momentum_correlation(mu**2, 1 - mu**2, mu) / mu
    energies = mode_energies(n, m, ns_steps)
    degree = 2 * np.arange(len(energies)) + 1.0
    memory = a * mu**degree
    one_step = min(n, m) * float(energies.sum())
    lagged = min(n, m) * float(energies @ (ratio**degree * memory / (1 - memory)))
    squared = h**2 * (one_step + 2 * lagged) / (shrink * (2 - shrink))
    relative = h * math.sqrt(one_step / squared)
    rms = math.sqrt(squared / (n * m))
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_from_relative_update(relative, lr, weight_decay).angle),
        relaxation_steps=1 / (2 * lr * weight_decay),
        law="muon_equilibrium",
        effective_lr=lr / rms,
        rms=rms,
        relative_update=relative,
    )
