"""Arithmetic of bfloat16 (8 significant bits), as torch rounds: to the nearest, ties to even."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from theory.results import Array

SIGNIFICANT_BITS = 8
"""Of bfloat16, the leading one included."""


def round_bf16(value: ArrayLike) -> Array:
    """Round float32 numbers to bfloat16, ties to even.

    Args:
        value: Finite numbers, any shape; taken as float32 first, as torch's bfloat16 kernels compute.

    Returns:
        The rounded numbers as float64, same shape.

    Example:
        >>> round_bf16([1.001, 1.01]).tolist()
        [1.0, 1.0078125]
    """
    bits = np.asarray(value, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def ulp(value: ArrayLike) -> Array:
    """Spacing of bfloat16 numbers at each value, 2^(floor(log2|x|) - 7).

    Args:
        value: Numbers, any shape.

    Returns:
        Spacings, same shape (meaningless at 0).

    Example:
        >>> ulp([1.0, 3.0]).tolist()
        [0.0078125, 0.015625]
    """
    return np.ldexp(1.0, np.frexp(np.asarray(value, dtype=np.float64))[1] - SIGNIFICANT_BITS)


def normal_sizes(count: int = 4096) -> Array:
    """Equally likely absolute values of a standard normal, for averages over weights or gradients.

    Quantiles rather than Gauss-Hermite nodes: the spacing jumps at powers of two.

    Args:
        count: How many.

    Returns:
        Absolute values, increasing, shape (count,).

    Example:
        >>> round(float(np.mean(normal_sizes() ** 2)), 2)
        1.0
    """
    return ndtri(0.5 + 0.5 * (np.arange(count) + 0.5) / count)
