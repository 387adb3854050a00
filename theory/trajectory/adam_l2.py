"""Adam with coupled L2 under any schedule: SGD with momentum, its rate divided by the gradient's root mean square."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.results import angle_of_chord
from theory.trajectory.march import inverse
from theory.trajectory.sgd import settled_moments, sgd_moments_step

Array = NDArray[np.float64]


def adam_l2_moments(
    lr: Array,
    weight_decay: Array,
    betas: ArrayLike,
    start: Array,
    c2: Array,
    d: Array,
    scale_invariant: NDArray[np.bool_],
    done: int = 0,
    noise: Array | None = None,
) -> tuple[Array, Array]:
    """Squared norm after, and rotation during, every step of torch.optim.Adam with `weight_decay`, for n tensors.

    Every coordinate of a tensor is taken alike: second moment v = E g^2 + weight_decay^2 E w^2, first moment as SGD
    with momentum and dampening beta1 at the rate lr/sqrt(v). The equilibrium is `adam_l2_equilibrium` with one kind of
    coordinate.

    Args:
        lr: Learning rate per step, shape (T,).
        weight_decay: L2 coefficient per step, shape (T,).
        betas: Adam's betas, shape (2,), or of each step, shape (T, 2).
        start: ||w||^2 at step 0, shape (n,).
        c2: Gradient second moment, on the unit sphere where scale-invariant, shape (n,).
        d: Number of coordinates, shape (n,).
        scale_invariant: Shape (n,).
        done: Steps before the first; the moments are then taken to have followed a constant norm.
        noise: Gradients' second moment of each step relative to `c2`, shape (T,).

    Returns:
        Squared norms and angles (rad/step), each of shape (T, n).
    """
    pairs = np.broadcast_to(np.asarray(betas, dtype=np.float64), (len(lr), 2)).tolist()
    noise = np.ones_like(lr) if noise is None else noise
    w, x, b, v = start, *(np.zeros_like(start) for _ in range(3))
    if done > 0:
        b1, b2 = pairs[0]
        q = c2 * noise[0] * inverse(w, scale_invariant)
        square = (q + weight_decay[0] ** 2 * w) / d
        v = square * (1 - b2**done)
        x, b = settled_moments(w, q, lr[0] / np.sqrt(square), float(weight_decay[0]), b1, False, 1 - b1)
    squares, angles = np.empty((len(lr), len(start))), np.empty((len(lr), len(start)))
    for t, (rate, wd) in enumerate(zip(lr.tolist(), weight_decay.tolist(), strict=True)):
        b1, b2 = pairs[t]
        q = c2 * noise[t] * inverse(w, scale_invariant)
        v = b2 * v + (1 - b2) * (q + wd**2 * w) / d
        count = done + t + 1
        h = rate / (1 - b1**count) / np.sqrt(v / (1 - b2**count))
        before, first = w, (1 - b1, 0.0 if count == 1 else b1)
        w, x, b, moved = sgd_moments_step(w, x, b, q, h, wd, b1, False, first)
        root, root_after = np.sqrt(before), np.sqrt(w)
        scale = 2 * root * root_after
        chord = (moved - (root_after - root) ** 2) / np.where(scale > 0, scale, 1.0)
        squares[t], angles[t] = w, angle_of_chord(chord)
    return squares, angles
