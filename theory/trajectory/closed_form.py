"""Norms under the common schedules in closed form: one linear equation, one number kappa = peak*wd*steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import dawsn, erfcx, expi

from theory.errors import InputError, finite, require
from theory.results import Array

Function = Callable[[Array], Array]
_GAUSS = np.polynomial.legendre.leggauss(24)
_NODES, _WEIGHTS = (_GAUSS[0] + 1) / 2, _GAUSS[1] / 2  # on [0, 1]
_EDGES = np.append(1 - 0.5 ** np.arange(44), 1.0)
_SMALL = 1e-6  # first order in kappa below, where the closed forms cancel


@dataclass(frozen=True)
class ClosedForm:
    """Squared norm relative to its equilibrium at the peak rate."""

    r: float
    """R/R* (Adam family) or (R/R*)^2 (SGD on scale-invariant weights), dimensionless."""
    law: str = "closed_form_norm"
    """Name of the law that gave it."""


def relaxed(r0: float, s: float, kappa: float, source: Function, decay: Function) -> float:
    """Solve dr/ds = 2 kappa (source - decay' r) by its integral, exactly to rounding.

    Args:
        r0: Value at s = 0.
        s: Where, in [0, 1].
        kappa: Rate, >= 0.
        source: x^2 as a function of s, vectorised.
        decay: Integral of the decay from 0 to s, vectorised.

    Returns:
        r(s) = r0 exp(-2 kappa decay(s)) + 2 kappa int_0^s source(q) exp(-2 kappa (decay(s)-decay(q))) dq, by
        Gauss-Legendre on panels that halve towards s, where the integrand lives for large kappa.

    Example:
        >>> relaxed(0.0, 1.0, 0.5, lambda s: s**0, lambda s: s) == 1 - math.exp(-1)
        True
    """
    widths = s * np.diff(_EDGES)
    q = (s * _EDGES[:-1, None] + widths[:, None] * _NODES).ravel()
    weight = (widths[:, None] * _WEIGHTS).ravel()
    end = float(decay(np.asarray(s)))
    forcing = source(q) * np.exp(-2 * kappa * (end - decay(q)))
    return r0 * math.exp(-2 * kappa * end) + 2 * kappa * float(weight @ forcing)


def _scaled_expi(z: float) -> float:
    """exp(-z) Ei(z) for z > 0; the asymptotic series beyond 50 is right to exp(-50)."""
    if z <= 50:
        return math.exp(-z) * float(expi(z))
    total = term = 1.0
    for n in range(1, 50):
        term *= n / z
        total += term
        if term < 1e-17:
            break
    return total / z


def _linear(kappa: float, r0: float, x: float = 0.0) -> float:
    finite("x", x, high=1.0, open_high=False)
    if kappa < _SMALL:
        return r0 + kappa * (2 / 3 * (1 - x**3) - r0 * (1 - x**2))
    left = math.exp(-kappa * (1 - x**2))
    root = math.sqrt(kappa)
    tail = math.sqrt(math.pi) / (2 * root) * (float(erfcx(root * x)) - left * float(erfcx(root)))
    return (r0 - 1) * left + x + tail


def _warmup(kappa: float, r0: float, x: float = 1.0) -> float:
    finite("x", x, high=1.0, open_high=False)
    if kappa < _SMALL:
        return r0 + kappa * (2 / 3 * x**3 - r0 * x**2)
    root = math.sqrt(kappa)
    return r0 * math.exp(-kappa * x**2) + x - float(dawsn(root * x)) / root


def _cosine(kappa: float, r0: float, floor: float = 0.0, s: float = 1.0) -> float:
    finite("floor", floor, high=1.0, open_high=False)
    finite("s", s, high=1.0, open_high=False)
    rate = lambda q: floor + (1 - floor) * np.cos(np.pi * q / 2) ** 2
    total = lambda q: floor * q + (1 - floor) / 2 * (q + np.sin(np.pi * q) / np.pi)
    return relaxed(r0, s, kappa, lambda q: rate(q) ** 2, total)


def _invsqrt(kappa: float, r0: float, y: float) -> float:
    require(finite("y", y) >= 1, "y", y, "at least 1, in units of t0")
    if kappa == 0:
        return r0
    start, now = 4 * kappa, 4 * kappa * math.sqrt(y)
    left = math.exp(start - now)
    return r0 * left + 4 * kappa * (_scaled_expi(now) - left * _scaled_expi(start))


def _constant(kappa: float, r0: float) -> float:
    return 1 + (r0 - 1) * math.exp(-2 * kappa)


def _wsd(kappa: float, r0: float, decay_fraction: float) -> float:
    f = finite("decay_fraction", decay_fraction, high=1.0, open_high=False)
    plateau = _constant((1 - f) * kappa, r0)
    return _linear(f * kappa, plateau)


KINDS: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "linear": _linear,
    "warmup": _warmup,
    "cosine": _cosine,
    "invsqrt": _invsqrt,
    "wsd": _wsd,
}


def closed_form_norm(kind: str, kappa: float, r0: float = 1.0, **parameters: Any) -> ClosedForm:
    r"""Squared norm at the end (or at a point) of a schedule, momentum-free limit, in closed form.

    Setting: dR/dt = -2 lr wd R + lr^2 c with constant c (Adam family, white noise); with r = R/R*, R* = peak*c/(2 wd),
    x = lr/peak, s = t/T: dr/ds = 2 kappa (x^2 - x r), kappa = peak*wd*T. SGD on scale-invariant weights obeys the same
    equation for r = (R/R*)^2 with kappa doubled and divided by 1 - momentum. One line each:

    - constant: 1 + (r0-1) e^(-2 kappa)
    - linear 1 -> 0, at rate `x` (0): (r0-1) E + x + (sqrt(pi)/2 sqrt(kappa)) [erfcx(sqrt(kappa) x) - E erfcx(sqrt(
      kappa))], E = e^(-kappa(1-x^2)); at the end r0 e^(-kappa) + (sqrt(pi)/2 sqrt(kappa)) erf sqrt(kappa) - e^(-kappa)
    - warmup 0 -> 1, at rate `x` (1): r0 e^(-kappa x^2) + x - D(sqrt(kappa) x)/sqrt(kappa), D Dawson's function
    - cosine to `floor` (0), at `s` (1): by quadrature; for large kappa A kappa^(-2/3), A = (pi^4/24) Gamma(5/3)
      (6/pi^2)^(5/3)
    - invsqrt x = y^(-1/2), y = t/t0 from 1, kappa = peak*wd*t0, at `y`: with z = 4 kappa sqrt(y), z0 = 4 kappa
      r0 e^(z0-z) + z0 e^(-z) [Ei(z) - Ei(z0)]
    - wsd: constant, then linear to 0 over the last `decay_fraction`.

    Source: derived here (integrating factor). Exact for the equation to 1e-10; SGD 0.2 %, AdamW 1 % for
    lr*wd <= 1e-3 and, on scale-invariant weights, lr*wd <= (1-beta2)/20; beyond, O(lr*wd*beta1/(1-beta1)) and
    O(0.1 lr*wd/(1-beta2)): use a recursion (`adamw_trajectory`) for predictions.

    Args:
        kind: constant, linear, warmup, cosine, invsqrt or wsd.
        kappa: peak*wd*T >= 0, dimensionless (invsqrt: with T = t0).
        r0: Initial r >= 0.
        **parameters: The kind's own: x, floor, s, y, decay_fraction.

    Returns:
        r, dimensionless.

    Raises:
        InputError: If the kind is unknown, or a parameter is missing, unknown or out of range.

    Example:
        >>> round(closed_form_norm("linear", kappa=1.0, r0=1.0).r, 6)
        0.746824
    """
    require(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    kappa, r0 = finite("kappa", kappa), finite("r0", r0)
    try:
        return ClosedForm(r=KINDS[kind](kappa, r0, **parameters))
    except TypeError:
        raise InputError(f"kind = {kind!r} does not take exactly the parameters {sorted(parameters)}.") from None
