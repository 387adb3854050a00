"""How far a prediction made before the data may be off: the one place that says so.

A law's own error is a fraction of a per cent; these bands are what it cannot know before training (how gradients
correlate in time, how far a tensor is from scale invariance). They are multiples of the predicted value, taken from
trained networks: scale-invariant matrices of small normalised networks, and the matrices and embeddings of small
GPT-2s, whose value and output projections came out up to 2 times smaller, and whose embeddings and first-layer queries
and keys up to 2.5 times larger.
"""

from __future__ import annotations

from dataclasses import dataclass

from theory.optimizers import SGD, Hyperball, Lion, Optimizer, Signum


@dataclass(frozen=True)
class Band:
    """Lowest and highest plausible multiple of the predicted norm, angle and update."""

    norm: tuple[float, float]
    """Of the norm that the run builds up."""
    angle: tuple[float, float]
    """Of the rotation of scale-invariant tensors; that of the others follows from update and norm."""
    update: tuple[float, float]
    """Of the update's size at the actual norm."""
    keeps_start: bool = True
    """Whether what decay leaves of the initial norm is certain; not for gains and biases, which a signal drives."""


def prior_band(optimizer: Optimizer, *, scale_invariant: bool, matrix: bool = True) -> Band:
    """Band of a prediction made from the recipe alone.

    Args:
        optimizer: The optimizer.
        scale_invariant: Whether the tensor (or each of its rows) is.
        matrix: Whether it has two or more dimensions.

    Returns:
        Multiples of the predicted values.

    Example:
        >>> prior_band(SGD(lr=0.1, weight_decay=0.01), scale_invariant=True).angle
        (0.9, 1.1)
    """
    if isinstance(optimizer, SGD):
        # exact at stationary norm; within an epoch or two norms drift by as much as this
        return Band((0.6, 1.6), (0.9, 1.1), (0.6, 1.6))
    if isinstance(optimizer, Hyperball):
        return Band((1.0, 1.0), (0.9, 1.1), (1.0, 1.0))
    if isinstance(optimizer, (Lion, Signum)) and scale_invariant:
        return Band((0.60, 1.05), (0.95, 1.65), (1.0, 1.0))  # signs have no size to be wrong about
    update = (0.87, 1.05)
    if scale_invariant:
        return Band((0.70, 1.10), (0.95, 1.05), update)
    if not matrix:
        return Band((0.1, 2.0), (0.4, 10.0), (0.7, 1.3), keeps_start=False)
    return Band((0.5, 2.5), (0.35, 2.1), update)


def calibrated_band() -> Band:
    """Band of a prediction that was issued again with measured long-run variance.

    Returns:
        Multiples of the predicted values.
    """
    return Band((0.8, 1.2), (0.8, 1.2), (0.9, 1.1))


def reference_band(runs: int) -> Band:
    """Band of a prediction calibrated on finished runs of the same network.

    Nine of ten norms and angles lay in it in the figure `one_run_predicts_the_sweep`.

    Args:
        runs: Number of references.

    Returns:
        Multiples of the predicted values.
    """
    return Band((0.85, 1.2), (0.8, 1.2), (0.9, 1.1)) if runs > 1 else Band((0.7, 1.35), (0.7, 1.4), (0.85, 1.15))
