"""What the laws return: frozen dataclasses whose field names are the quantities' names everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Equilibrium:
    """Where norm and rotation settle under constant hyper-parameters."""

    norm: float
    """Root of the mean squared Frobenius norm, sqrt(E||w||^2)."""
    angle: float
    """RMS rotation of one step, rad/step."""
    relaxation_steps: float
    """e-folding time of a small displacement of ||w||^2, steps."""
    law: str
    """Name of the law that gave it."""
    effective_lr: float = float("nan")
    """lr/norm^2 (SGD) or lr/rms (Adam family)."""
    rms: float = float("nan")
    """norm/sqrt(d), where d is known."""
    relative_update: float = float("nan")
    """||decay-free update||/||w||, dimensionless."""


@dataclass(frozen=True)
class Trajectory:
    """Norm after, and rotation during, each listed step."""

    step: NDArray[np.int64]
    """Step indices, shape (n,)."""
    norm: Array
    """sqrt(E||w||^2) after the step, shape (n,)."""
    angle: Array
    """RMS rotation of the step, rad/step, shape (n,)."""
    law: str
    """Name of the law that gave it."""
    effective_lr: Array | None = None
    """lr/norm^2 (SGD) or lr/rms (Adam family) at the step, shape (n,), where the law says it."""


@dataclass(frozen=True)
class Angles:
    """One rotation per step."""

    angle: Array
    """rad/step."""


def angle_of_chord(one_minus_cos: float | Array) -> float | Array:
    """Angle from 1 - cos, where the difference is known without cancellation.

    Args:
        one_minus_cos: 1 - cos, shape any.

    Returns:
        The angle in rad, same shape.
    """
    return 2 * np.arcsin(np.sqrt(np.clip(np.asarray(one_minus_cos) / 2, 0, 1)))[()]
