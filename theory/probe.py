"""The few numbers that a prediction cannot know before the data."""

from __future__ import annotations

from dataclasses import dataclass, field

from theory.errors import finite, require, whole
from theory.serialize import serializable, settle


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
    radial: float = 0.0
    """Mean of <w,g>/(||w|| ||g||), in (-1, 1): 0 for scale-invariant tensors; positive restores, like further decay."""

    def __post_init__(self) -> None:
        if self.c2 is not None:
            settle(self, c2=finite("c2", self.c2))
            require(self.c2 > 0, "c2", self.c2, "a positive number")
        settle(
            self,
            norm=None if self.norm is None else finite("norm", self.norm),
            long_run_ratio=finite("long_run_ratio", self.long_run_ratio),
            update_ratio=finite("update_ratio", self.update_ratio),
            radial=finite("radial", self.radial, low=-1.0, high=1.0),
        )
        require(self.radial > -1, "radial", self.radial, "a cosine in (-1, 1)")


@serializable
@dataclass(frozen=True)
class Probe:
    """Measurements up to a step, from which a prediction is issued again for the rest of the run."""

    step: int = 0
    """Steps done when the prediction is issued; it is judged on later ones only."""
    tensors: dict[str, TensorProbe] = field(default_factory=dict)
    """By group name."""

    def __post_init__(self) -> None:
        settle(self, step=whole("step", self.step), tensors=dict(self.tensors))
        for name, tensor in self.tensors.items():
            require(isinstance(tensor, TensorProbe), f"tensors[{name!r}]", tensor, "a TensorProbe")
