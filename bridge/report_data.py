"""Curves of a report, thinned and packed: 16 bits a number, differences along the curve, gzip, base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS = 160
"""Points of a curve in the report; more cannot be seen."""
EARLY = 40
"""How many of them are spaced geometrically from the start, where curves bend most."""
LEVELS = 65_534
"""Highest code of a packed number; one more stands for nan."""


def pack(values: Array) -> dict[str, Any]:
    """Pack curves; `unpack` in run.js reads them.

    Positive curves are coded by their logarithm, so that the error is relative: half of ln(max/min)/65534, at most 1e-4
    over six decades.

    Args:
        values: Shape (curves, points); nan where unknown.

    Returns:
        shape, low, high and log (one for each curve), and data (text).

    Example:
        >>> packed = pack(np.array([[1.0, 2.0, 4.0]]))
        >>> unpack(packed).round(3).tolist()
        [[1.0, 2.0, 4.0]]
    """
    known = np.isfinite(values)
    log: NDArray[np.bool_] = np.all((values > 0) | ~known, axis=1)
    scaled = np.where(log[:, None], np.log(np.where(known & (values > 0), values, 1.0)), np.where(known, values, 0.0))
    low = np.min(scaled, axis=1, initial=np.inf, where=known)
    high = np.max(scaled, axis=1, initial=-np.inf, where=known)
    empty = ~known.any(axis=1)
    low, high = np.where(empty, 0.0, low), np.where(empty, 0.0, high)
    width = np.where(high > low, high - low, 1.0)
    codes = np.rint((scaled - low[:, None]) / width[:, None] * LEVELS).clip(0, LEVELS)
    codes = np.where(known, codes, LEVELS + 1).astype(np.uint16)
    steps = np.diff(codes, axis=1, prepend=np.uint16(0)).astype("<u2").ravel()
    planes = np.concatenate([(steps & 255).astype(np.uint8), (steps >> 8).astype(np.uint8)])
    return {
        "shape": list(values.shape),
        "low": [float(f"{x:.8g}") for x in low.tolist()],
        "high": [float(f"{x:.8g}") for x in high.tolist()],
        "log": log.astype(int).tolist(),
        "data": base64.b64encode(gzip.compress(planes.tobytes(), 9, mtime=0)).decode(),
    }


def unpack(packed: Mapping[str, Any]) -> Array:
    """Read packed curves.

    Args:
        packed: From `pack`.

    Returns:
        Shape (curves, points).
    """
    planes = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), dtype=np.uint8)
    half = len(planes) // 2
    steps = planes[:half].astype(np.uint16) | (planes[half:].astype(np.uint16) << 8)
    codes = np.cumsum(steps.reshape(packed["shape"]), axis=1, dtype=np.uint16)
    low, high, log = (np.array(packed[key])[:, None] for key in ("low", "high", "log"))
    values = low + (high - low) * codes / LEVELS
    return np.where(codes > LEVELS, np.nan, np.where(log > 0, np.exp(values), values))


def grid(count: int, points: int = POINTS) -> NDArray[np.int64]:
    """Positions in a series, close together at first, then evenly.

    Args:
        count: Length of the series.
        points: How many positions at most.

    Returns:
        Increasing indices, the first and the last included.
    """
    if count <= points:
        return np.arange(count)
    early = np.geomspace(1, count, EARLY).astype(np.int64) - 1
    return np.unique(np.concatenate([early, np.linspace(0, count - 1, points - EARLY).astype(np.int64)]))


def thinned(wide: pd.DataFrame, points: int = POINTS) -> tuple[list[int], Array]:
    """A measured quantity, its root mean square between one point and the next: single steps scatter.

    Args:
        wide: Steps in rows, tensors in columns.
        points: How many points at most.

    Returns:
        Steps (the last of each stretch), and values of shape (tensors, points).
    """
    ends = grid(len(wide), points)
    edges = np.concatenate([[0], ends + 1])
    squares, counts = (np.add.reduceat(part, edges[:-1], axis=0) for part in _squares(wide.to_numpy(np.float64)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return wide.index.to_numpy()[ends].tolist(), np.sqrt(squares / counts).T


def _squares(values: Array) -> tuple[Array, Array]:
    known = np.isfinite(values)
    return np.square(np.where(known, values, 0.0)), known.astype(np.float64)


def predicted(table: pd.DataFrame, quantity: str, names: Sequence[str]) -> tuple[list[int], dict[str, Array]]:
    """A predicted quantity from a stored table.

    Args:
        table: As from `Prediction.table`.
        quantity: Its name.
        names: Tensors, in the order wanted.

    Returns:
        Steps, and value, low and high, each of shape (tensors, points); nan where nothing was predicted.
    """
    rows = table[table["quantity"] == quantity]
    steps = np.unique(rows["step"].to_numpy())
    steps = steps[grid(len(steps))]
    rows = rows[rows["step"].isin(steps)]
    wide = {
        key: rows.pivot(index="group", columns="step", values=key).reindex(names) for key in ("value", "low", "high")
    }
    return steps.tolist(), {key: frame.to_numpy(np.float64) for key, frame in wide.items()}
