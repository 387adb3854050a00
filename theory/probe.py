"""The few numbers that a prediction cannot know before the data."""

from __future__ import annotations

from dataclasses import dataclass, field

from theory.serialize import serializable


@serializable
@dataclass(frozen=True)
class TensorProbe:
    """What was measured of one tensor."""

    c2: float | None = None
    """Gradient second moment on the unit sphere, E||g||^2 ||w||^2 (needed for SGD and for Adam with coupled decay)."""
    norm: float | None = None
    """||w|| at the probe's step; the prediction starts there."""
    long_run_ratio: float = 1.0
    """Measured long-run variance of the update over the law's (white, Gaussian) one: scales the growth of ||w||^2."""
    update_ratio: float = 1.0
    """Measured mean square of one update over the law's: scales the rotation."""


@serializable
@dataclass(frozen=True)
class Probe:
    """Measurements up to a step, from which a prediction is issued again for the rest of the run."""

    step: int = 0
    """Steps done when the prediction is issued; it is judged on later ones only."""
    tensors: dict[str, TensorProbe] = field(default_factory=dict)
    """By group name."""
