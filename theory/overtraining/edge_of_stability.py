"""Edge of stability on the sphere: decay shrinks the norm until the sharpness that lr sees reaches its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theory.equivalence.sgd import slow_root
from theory.errors import finite, require
from theory.results import angle_of_chord


@dataclass(frozen=True)
class SphereEos:
    """The period-2 orbit of gradient descent with decay on a scale-invariant loss."""

    norm: float
    """||w|| on the orbit."""
    angle: float
    """Rotation of one step, rad/step."""
    excess_loss: float
    """Loss above the minimum, unit of the loss."""


@dataclass(frozen=True)
class Duration:
    """A time."""

    steps: float
    """Steps."""


def _decay_per_step(lr: float, weight_decay: float) -> float:
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    allowed = "in (0, 1): without decay the norm never falls to the edge"
    require(0 < shrink < 1, "lr * weight_decay", shrink, allowed)
    return shrink


def sphere_eos(lr: float, weight_decay: float, sharpness: float, momentum: float = 0.0) -> SphereEos:
    """Where full-batch descent with decay ends up on a scale-invariant loss: norm, rotation, excess loss.

    Setting: coupled decay, loss 1/2 L sin^2(phi) near its minimum, L the largest Hessian eigenvalue on the unit sphere
    (for w'Hw/(2||w||^2) it is h_max - h_min). Decay shrinks ||w||^2 until lr*L/||w||^2 reaches 2. Then w jumps between
    phi and -phi: returning in direction needs 2aR = lr*L*cos(2 phi), returning in norm lr^2 L^2 sin^2(2 phi) =
    4R^2 (1-a^2), hence R = ||w||^2 = lr*L/2, cos(2 phi) = a = 1 - lr*wd and excess = L(1-a)/4 exactly. Heavy ball on a
    period-2 orbit is plain descent at lr/(1+momentum): replace lr by that.

    Noise besides, a share p of it in the sharp direction, gives R^2 = R_noise^2 (1 + p R*/(R - R*)), R* = lr*L/2 being
    the orbit's: the larger of R_noise and R* far from the crossover, at it 62 % above for p = 1, 20 % for p = 1/11.

    Source: Li et al., arXiv 2010.02916; Lyu et al., arXiv 2206.07085; orbit derived here. Exact (1e-7) on the orbit,
    which neighbours circle in cycles (`eos_period`): time averages of norm within 2 % and of excess 6 %; ln cos of the
    rotation averages ln a on every cycle, exactly, and its RMS is 6 % low on small cycles, 10 % from random starts.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient; 0 < lr*weight_decay < 1.
        sharpness: L, unit of the loss (weights on the unit sphere have no unit).
        momentum: Heavy-ball coefficient in [0, 1), dimensionless.

    Returns:
        Norm, angle (rad/step) and excess loss.

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or another input is out of range.

    Example:
        >>> sphere_eos(1.0, 0.001, sharpness=2.0).excess_loss
        0.0005
    """
    shrink = _decay_per_step(lr, weight_decay) / (1 + finite("momentum", momentum, high=1.0))
    top = finite("sharpness", sharpness)
    require(top > 0, "sharpness", sharpness, "positive")
    return SphereEos(
        norm=math.sqrt(lr * top / (2 * (1 + momentum))),
        angle=float(angle_of_chord(shrink)),
        excess_loss=top * shrink / 4,
    )


def time_to_eos(norm0: float, lr: float, weight_decay: float, sharpness: float, momentum: float = 0.0) -> Duration:
    """Steps until decay has shrunk converged weights to the edge of stability.

    Setting: direction converged, gradients negligible, momentum settled: w shrinks by alpha a step, the larger root of
    x^2 - (1+mu-lr*wd)x + mu (1 - lr*wd without momentum), to R = lr*L/(2(1+mu)): t = ln(R0/R)/(-2 ln alpha). From an
    empty momentum buffer mu/(1-mu) steps more, nearly. The short form (1-mu) ln(R0/R)/(2 lr wd) is high by a factor
    1 + lr*wd*(1+mu)/(2(1-mu)^2).

    Source: derived here. Accuracy 0.1 %; later while the direction still converges, and the blow-up becomes visible
    a few per cent after the crossing, when it has grown from rounding noise.

    Args:
        norm0: ||w|| at the start.
        lr: Learning rate.
        weight_decay: L2 coefficient; 0 < lr*weight_decay <= (1-sqrt(momentum))^2.
        sharpness: Largest Hessian eigenvalue on the unit sphere, unit of the loss.
        momentum: Heavy-ball coefficient in [0, 1), dimensionless.

    Returns:
        Steps; 0 if the norm is already that small.

    Raises:
        InputError: If an input is out of range, or the weights oscillate through zero.

    Example:
        >>> round(time_to_eos(2.0, 1.0, 0.001, sharpness=2.0).steps)
        693
    """
    edge = sphere_eos(lr, weight_decay, sharpness, momentum).norm
    require(finite("norm0", norm0) > 0, "norm0", norm0, "positive")
    lost, _ = slow_root(lr, weight_decay, momentum)
    return Duration(max(math.log(norm0 / edge), 0.0) / -math.log1p(-lost))


def eos_period(lr: float, weight_decay: float) -> Duration:
    """Period of small oscillations of norm and loss about the orbit of `sphere_eos`.

    With R = R*(1+e) and T = ln(tan^2 phi/tan^2 phi*): dT = -4e, de = 2*lr*wd*T a step, so T'' = -8*lr*wd*T and the
    period is 2 pi/sqrt(8*lr*wd); the equations are Lotka and Volterra's (norm the predator, loss the prey).

    Source: periods seen by Lobacheva et al., arXiv 2106.15739; formula derived here. Accuracy 0.5 % for
    lr*wd <= 0.01 without momentum and small amplitude; large cycles take longer.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient; 0 < lr*weight_decay < 1.

    Returns:
        The period, steps.

    Raises:
        InputError: If lr*weight_decay is not in (0, 1).

    Example:
        >>> round(eos_period(1.0, 0.001).steps, 1)
        70.2
    """
    return Duration(2 * math.pi / math.sqrt(8 * _decay_per_step(lr, weight_decay)))
