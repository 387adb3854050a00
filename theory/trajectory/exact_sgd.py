"""SGD step by step: with Nesterov momentum, or at rates so large that no slow root exists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.optimizers import SGD
from theory.results import angle_of_chord
from theory.trajectory.march import Path, inverse, lean_of
from theory.trajectory.segments import Array
from theory.trajectory.sgd import settled_moments, sgd_moments_step


def exact_sgd_path(
    optimizer: SGD,
    lr: Array,
    decay: Array,
    w: Array,
    c2: Array,
    invariant: NDArray[np.bool_],
    start: int,
    radial: Array,
) -> Path:
    """Norms and rotations of tensors under SGD.

    Args:
        optimizer: Its momentum, dampening and kind.
        lr: Learning rates from the first step on, shape (T,).
        decay: Weight decays, shape (T,).
        w: Initial ||w||^2, shape (n,).
        c2: E||g||^2 ||w||^2, shape (T, n).
        invariant: Whether the gradient scales as 1/||w||, shape (n,).
        start: Index of the first step.
        radial: Mean cosine of gradient and weights, shape (n,).

    Returns:
        The path.
    """
    squares, angles, x, b = [w], [], np.zeros_like(w), np.zeros_like(w)
    mu, nesterov, damped = (
        optimizer.momentum,
        optimizer.nesterov,
        1 - optimizer.dampening if optimizer.momentum else 1.0,
    )
    if start > 0:
        q = c2[0] * inverse(w, invariant)
        drawn = decay[0] + lean_of(radial, w, q)
        x, b = settled_moments(w, q * (1 - radial**2), float(lr[0]), drawn, mu, nesterov, damped)
    for t in range(len(lr)):
        weights = (1.0, 0.0) if start + t == 0 else (damped, mu)
        q, before = c2[t] * inverse(w, invariant), w
        drawn = decay[t] + lean_of(radial, w, q)
        w, x, b, moved = sgd_moments_step(w, x, b, q * (1 - radial**2), lr[t], drawn, mu, nesterov, weights)
        squares.append(w)
        scale = 2 * np.sqrt(w * before)
        chord = (moved - (np.sqrt(w) - np.sqrt(before)) ** 2) / np.where(scale > 0, scale, 1.0)
        angles.append(angle_of_chord(np.where(scale > 0, chord, 0.0)))
    return Path.from_steps(np.array(squares), np.array(angles), start)
