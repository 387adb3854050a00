"""Adam with coupled L2: the decay is divided by the gradient's root mean square, coordinate by coordinate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import InputError, finite, require
from theory.results import Equilibrium, angle_of_chord


def adam_l2_equilibrium(
    lr: float, weight_decay: float, betas: tuple[float, float], s_unit: ArrayLike, counts: ArrayLike | None = None
) -> Equilibrium:
    """Equilibrium of torch.optim.Adam with `weight_decay` on scale-invariant weights, self-consistently.

    Leading order ||w||^3 = lr * sum(s)/(2 wd): decay acts less where gradients are large, and the norm falls only as
    wd^(-1/3). Here each coordinate i has second moment v_i = s_i^2/R + wd^2 r_i and behaves as SGD with momentum beta1,
    dampening beta1 and decay wd/sqrt(v_i); its variance r_i follows from the SGD gain, and R = sum r_i closes the loop.
    Accuracy 1 %; needs 1-beta2 << 1 and noise that dominates the second moment.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient.
        betas: Adam's (beta1, beta2).
        s_unit: RMS gradient of each kind of coordinate on the unit sphere (sqrt(E g_i^2) = s_i/||w||), shape (k,).
        counts: How many coordinates of each kind, shape (k,); one each if omitted.

    Returns:
        Norm and angle (rad/step).

    Raises:
        InputError: If there is no equilibrium or the fixed point does not settle.

    Example:
        >>> round(adam_l2_equilibrium(0.01, 0.001, (0.9, 0.999), [0.03125], [1024]).norm, 2)
        5.43
    """
    s = np.atleast_1d(np.asarray(s_unit, dtype=np.float64))
    n = np.ones_like(s) if counts is None else np.atleast_1d(np.asarray(counts, dtype=np.float64))
    require(bool(np.all(s > 0)) and n.shape == s.shape, "s_unit", s.tolist()[:4], "positive, as many as counts")
    require(
        finite("lr", lr) * finite("weight_decay", weight_decay) > 0, "lr * weight_decay", lr * weight_decay, "positive"
    )
    b1 = finite("betas[0]", betas[0], high=1.0)
    squared = (lr * float(n @ s) / (2 * weight_decay)) ** (2 / 3)
    per_coordinate = np.full_like(s, squared / n.sum())
    for _ in range(2_000):
        v = s**2 / squared + weight_decay**2 * per_coordinate
        rate = weight_decay / np.sqrt(v)
        step = (1 - b1) * lr * rate
        gain = (1 - b1) * lr * (1 + b1) / (rate * (1 - b1) * (2 * (1 + b1) - step))
        target = gain * s**2 / (squared * v)
        new = float(n @ target)
        per_coordinate = 0.5 * (per_coordinate + target)
        change, squared = abs(new / squared - 1), 0.5 * (squared + new)
        if change < 1e-13:
            break
    else:
        raise InputError(
            f"lr = {lr:g}, weight_decay = {weight_decay:g}: the norm does not settle (decay dominates the noise)."
        )
    chord = float(n @ (per_coordinate * step)) / (1 + b1) / squared
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_of_chord(chord)),
        relaxation_steps=squared / (3 * lr * float(n @ (rate * per_coordinate))),
        law="adam_l2_equilibrium",
        effective_lr=lr / math.sqrt(squared / n.sum()),
        rms=math.sqrt(squared / n.sum()),
    )
