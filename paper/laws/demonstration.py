"""What a demonstration of a law holds: what it says, what was measured, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
"""Numbers."""


@dataclass(frozen=True)
class Pair:
    """One series: prediction and measurement at the same abscissae."""

    name: str
    """Name of the series, or "" if there is only one."""
    quantity: str
    """What is compared, with its unit; pairs of one quantity share axes."""
    predicted: Array
    """What the law says, shape (n,)."""
    measured: Array
    """What the simulation gave, shape (n,)."""
    stderr: Array | None
    """Standard error of `measured`, shape (n,); None where nothing is random."""
    bar: float
    """Accuracy that the law must reach."""
    absolute: bool = False
    """Whether the error is predicted - measured (quantities that may vanish) instead of predicted/measured - 1."""

    @property
    def error(self) -> Array:
        """Error of the prediction, shape (n,)."""
        if self.absolute:
            return self.predicted - self.measured
        return (self.predicted - self.measured) / self.measured

    @property
    def error_stderr(self) -> Array | None:
        """Standard error of `error`, shape (n,); None where nothing is random."""
        if self.stderr is None or self.absolute:
            return self.stderr
        return self.stderr / np.abs(self.measured)


@dataclass(frozen=True)
class Demonstration:
    """A law over a sweep, beside what does not share its code."""

    law: str
    """Name of the law in `theory.__all__`."""
    setting: str
    """One sentence: what was simulated."""
    x_label: str
    """What is swept, with its unit."""
    x: Array
    """Abscissae, shape (n,)."""
    pairs: tuple[Pair, ...]
    """The series."""
    log_x: bool = False
    """Whether the abscissa is logarithmic."""
    log_y: bool = False
    """Whether the quantities' axes are logarithmic."""
    note: str = ""
    """Why the law misses its bar, or what the reader must know; empty if nothing."""

    @property
    def worst(self) -> tuple[Pair, int]:
        """The pair and index whose error is largest in units of its bar."""
        sizes = [np.abs(pair.error) / pair.bar for pair in self.pairs]
        pair = int(np.argmax([size.max() for size in sizes]))
        return self.pairs[pair], int(np.argmax(sizes[pair]))

    @property
    def inside(self) -> bool:
        """Whether every point lies within its bar, sampling error included."""
        return all(bool(np.all(np.abs(pair.error) <= pair.bar)) for pair in self.pairs)


def pair(
    name: str,
    quantity: str,
    predicted: ArrayLike,
    measured: ArrayLike,
    stderr: ArrayLike | None = None,
    *,
    bar: float,
    absolute: bool = False,
) -> Pair:
    """Make a `Pair` from anything array-like.

    Args:
        name: Name of the series.
        quantity: What is compared, with its unit.
        predicted: What the law says, shape (n,).
        measured: What the simulation gave, shape (n,).
        stderr: Standard error of `measured`, shape (n,).
        bar: Accuracy that the law must reach.
        absolute: Whether the error is a difference instead of a ratio.

    Returns:
        The pair.

    Example:
        >>> pair("", "norm", [1.01], [1.0], bar=0.02).error.round(3).tolist()
        [0.01]
    """
    error = None if stderr is None else np.asarray(stderr, dtype=np.float64)
    return Pair(
        name,
        quantity,
        np.asarray(predicted, dtype=np.float64),
        np.asarray(measured, dtype=np.float64),
        error,
        bar,
        absolute,
    )


def mean_error(samples: ArrayLike) -> tuple[Array, Array]:
    """Mean over independent runs, and its standard error.

    Args:
        samples: Values, runs along the last axis, shape (..., runs).

    Returns:
        Mean and standard error, each of shape (...).

    Example:
        >>> [float(x) for x in mean_error([1.0, 3.0])]
        [2.0, 1.0]
    """
    values = np.asarray(samples, dtype=np.float64)
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def root_mean_error(squares: ArrayLike) -> tuple[Array, Array]:
    """Root of a mean over independent runs, and its standard error.

    Args:
        squares: Squared values, runs along the last axis, shape (..., runs).

    Returns:
        Root mean and its standard error, each of shape (...).

    Example:
        >>> [float(x) for x in root_mean_error([3.0, 5.0])]
        [2.0, 0.25]
    """
    mean, error = mean_error(squares)
    root = np.sqrt(mean)
    return root, error / (2 * root)


def columns(rows: Sequence[Sequence[float]]) -> list[Array]:
    """Transpose a list of results, one a point, into one array a result.

    Args:
        rows: Results of each point, shape (n, k).

    Returns:
        k arrays of shape (n,).

    Example:
        >>> [c.tolist() for c in columns([(1.0, 2.0), (3.0, 4.0)])]
        [[1.0, 3.0], [2.0, 4.0]]
    """
    return list(np.asarray(rows, dtype=np.float64).T)
