"""From long tables to the curves that are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rms_windows(steps: NDArray[np.int64], values: Array, width: float) -> tuple[Array, Array]:
    """Root mean square over consecutive windows of steps; single steps' rotations scatter, laws speak of their RMS.

    Args:
        steps: Increasing step indices, shape (n,).
        values: Measured values, shape (n,).
        width: Width of a window, steps; windows start at multiples of it.

    Returns:
        Mean step and RMS of every window that holds a value, each of shape (windows,).

    Example:
        >>> rms_windows(np.array([0, 1, 10, 11]), np.array([3.0, 3.0, 1.0, 7.0]), 10)
        (array([ 0.5, 10.5]), array([3., 5.]))
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    _, index = np.unique(np.floor(steps / width), return_inverse=True)
    count = np.bincount(index)
    return np.bincount(index, steps) / count, np.sqrt(np.bincount(index, values**2) / count)


def rows_of(frame: pd.DataFrame, name: str, quantity: str) -> pd.DataFrame:
    """Rows of one tensor and one quantity, by step.

    Args:
        frame: Measured (column tensor) or predicted (column group) values, long.
        name: The tensor.
        quantity: The quantity.

    Returns:
        The rows, in order of steps.
    """
    key = "tensor" if "tensor" in frame.columns else "group"
    return frame[(frame[key] == name) & (frame["quantity"] == quantity)].sort_values("step")


def windowed(frame: pd.DataFrame, name: str, quantity: str, width: float) -> tuple[Array, Array]:
    """Measured curve of one tensor and quantity, RMS over windows.

    Args:
        frame: Columns step, tensor, quantity, value.
        name: The tensor.
        quantity: The quantity.
        width: Width of a window, steps.

    Returns:
        Mean step and RMS of every window, each of shape (windows,).
    """
    rows = rows_of(frame, name, quantity)
    return rms_windows(rows["step"].to_numpy(np.int64), rows["value"].to_numpy(np.float64), width)
