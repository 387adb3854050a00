"""What `predict` returns: norms, rotations and effective learning rates of every tensor, with their bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theory.bands import Band
from theory.errors import require
from theory.optimizers import SGD, Hyperball
from theory.probe import Probe
from theory.quantities import PREDICTED, UNITS
from theory.recipe import Recipe
from theory.trajectory.march import Path
from theory.trajectory.segments import restarts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bundle:
    """Tensors that share a learning rate and a decay, solved together."""

    members: NDArray[np.int64]
    """Positions of its tensors among the recipe's groups, shape (n,)."""
    path: Path | None
    """Per-coordinate mean squares (None: only the rotation at stationary norm is known)."""
    size: Array
    """Factor from the path's mean square to ||w||^2, shape (n,)."""
    stationary_angle: Array | None = None
    """Rotation at stationary norm, per step, where the norm itself is unknown, shape (T,)."""


@dataclass(frozen=True)
class Prediction:
    """Norm, rms, angle, effective lr and relative update of every tensor at every step, and how far they may be off."""

    recipe: Recipe
    """What was predicted."""
    probe: Probe | None
    """The measurements it used, if any."""
    bundles: tuple[Bundle, ...]
    """The solution."""
    bands: tuple[Band, ...]
    """Band of each group."""
    laws: tuple[str, ...]
    """Names of the laws used."""
    assumptions: tuple[str, ...]
    """What the laws take for granted."""
    warnings: tuple[str, ...]
    """What the user should know."""
    start: int = 0
    """First step that it speaks of."""

    def values(self, steps: Sequence[int] | NDArray[np.int64]) -> Mapping[str, Array]:
        """Predicted values at given steps.

        Args:
            steps: Step indices, shape (m,); norms are after the step, angles during it.

        Returns:
            For each quantity an array of shape (m, number of groups); NaN where it cannot be known before the data.

        Raises:
            InputError: If a step lies outside the run or before the prediction.
        """
        at = np.atleast_1d(np.asarray(steps, dtype=np.int64))
        inside = bool(np.all((at >= self.start) & (at < self.recipe.steps)))
        require(inside, "step", at.tolist()[:3], f"between {self.start} and {self.recipe.steps - 1}")
        groups = self.recipe.groups
        out = {name: np.full((len(at), len(groups)), np.nan) for name in PREDICTED}
        sizes = np.array([group.size for group in groups], dtype=np.float64)
        for bundle in self.bundles:
            if bundle.path is None:
                if bundle.stationary_angle is not None:
                    out["angle"][:, bundle.members] = bundle.stationary_angle[at][:, None]
                continue
            square, angle, relative = bundle.path.steps(at)
            norm = np.sqrt(square * bundle.size)
            lr = self.recipe.lr(at, groups[int(bundle.members[0])])[:, None]
            rms = norm / np.sqrt(sizes[bundle.members])
            with np.errstate(divide="ignore", invalid="ignore"):  # a zero tensor: inf, but 0 where lr is 0
                scale = norm**2 if isinstance(self.recipe.optimizer, SGD) else rms
                fixed = isinstance(self.recipe.optimizer, Hyperball)  # its lr is relative to the norm as it is
                rate = lr + 0 * norm if fixed else np.where(lr > 0, lr / scale, 0.0)
            for name, value in zip(PREDICTED, (norm, rms, angle, rate, relative), strict=True):
                out[name][:, bundle.members] = value
        return out

    def default_steps(self) -> NDArray[np.int64]:
        """Steps at which tables and plots report: close together at first, then evenly, the last always.

        Returns:
            Increasing step indices.
        """
        first, last = self.start, self.recipe.steps - 1
        early = first + np.unique(np.geomspace(1, max(1, last - first), 40).astype(np.int64)) - 1
        jumps = np.array(restarts(self.recipe.lr(np.arange(self.recipe.steps))), dtype=np.int64)
        jumps = jumps[jumps > first]
        after = (jumps[:, None] + np.array([-1, 0, 1, 2, 4, 8, 16, 32, 64, 128])).ravel()
        grid = np.concatenate([early, after[after <= last], np.linspace(first, last, 161).astype(np.int64)])
        return np.unique(grid)

    def table(self, steps: Sequence[int] | None = None) -> pd.DataFrame:
        """The prediction as a tidy table.

        Args:
            steps: Steps to report; about 200 spread over the run if omitted.

        Returns:
            Columns step, group, quantity, value, low, high, unit; one row per step, tensor and quantity.

        Raises:
            InputError: If a step lies outside the run.
        """
        at = self.default_steps() if steps is None else np.asarray(steps, dtype=np.int64)
        names = [group.name for group in self.recipe.groups]
        shape = (len(at), len(names))
        frames = []
        values, bands = self.values(at), self._bands(at)
        for quantity, value in values.items():
            low, high = bands[quantity]
            frames.append(
                pd.DataFrame(
                    {
                        "step": np.repeat(at, shape[1]),
                        "group": pd.Categorical.from_codes(np.tile(np.arange(shape[1]), shape[0]), names),
                        "quantity": quantity,
                        "value": value.ravel(),
                        "low": (value * low).ravel(),
                        "high": (value * high).ravel(),
                        "unit": UNITS[quantity],
                    }
                )
            )
        table = (
            pd.concat(frames, ignore_index=True)
            if frames and names
            else pd.DataFrame(columns=["step", "group", "quantity", "value", "low", "high", "unit"])
        )
        return table.astype({"group": "str"})

    def at(self, step: int) -> pd.DataFrame:
        """All tensors at one step.

        Args:
            step: Step index.

        Returns:
            One row per tensor: norm, rms, angle (rad/step), effective_lr, relative_update, each with its _low and
            _high.

        Raises:
            InputError: If the step lies outside the run.
        """
        columns: dict[str, Array] = {}
        values, bands = self.values([step]), self._bands(np.array([step]))
        for quantity, value in values.items():
            low, high = bands[quantity]
            columns |= {quantity: value[0]}
            columns |= {f"{quantity}_low": (value * low)[0], f"{quantity}_high": (value * high)[0]}
        return pd.DataFrame(columns, index=pd.Index([group.name for group in self.recipe.groups], name="group"))

    def plot(self, groups: Sequence[str] | None = None) -> Figure:
        """Norm, angle and learning rate over the run, bands shaded.

        Args:
            groups: Tensors to draw; up to six matrices with different predictions if omitted.

        Returns:
            A matplotlib figure (needs the `plot` extra).

        Raises:
            InputError: If matplotlib is not installed or a group is unknown.
        """
        from theory.plotting import plot_prediction

        return plot_prediction(self, groups)

    def _bands(self, at: NDArray[np.int64]) -> dict[str, tuple[Array, Array]]:
        """Low and high of every quantity as multiples of its value, each of shape (m, n)."""
        known = np.zeros((len(at), len(self.recipe.groups)))
        for bundle in self.bundles:
            if bundle.path is not None:
                known[:, bundle.members] = bundle.path.memory(at)
        known *= np.array([band.keeps_start for band in self.bands])
        edge = {kind: np.array([getattr(band, kind) for band in self.bands]).T for kind in ("norm", "angle", "update")}
        # what is left of the initial norm is known; the band concerns the rest of ||w||^2
        norm = tuple(np.sqrt(known + (1 - known) * side**2) for side in edge["norm"])
        update = tuple(np.broadcast_to(side, known.shape) for side in edge["update"])
        free = np.array([group.scale_invariant is None for group in self.recipe.groups])
        angle = tuple(
            np.where(free, update[i] / norm[1 - i], np.broadcast_to(edge["angle"][i], known.shape)) for i in (0, 1)
        )
        power = 2 if isinstance(self.recipe.optimizer, SGD) else 1
        rate = (1 / norm[1] ** power, 1 / norm[0] ** power)
        pairs = {"norm": norm, "rms": norm, "angle": angle, "effective_lr": rate, "relative_update": update}
        return {name: (low, high) for name, (low, high) in pairs.items()}
