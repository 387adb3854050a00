"""Rotation of a run without decay: it falls as 1/sqrt(t), whatever the learning rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import finite, require
from theory.results import Angles, angle_of_chord


def undecayed_angle(
    steps: ArrayLike, variance_ratio: float = 1.0, start: float = 0.0, *, scale_invariant_sgd: bool = False
) -> Angles:
    r"""Rotation of one step, after n steps without weight decay at a constant rate.

    Setting: white gradients. Updates of fixed size (AdamW, Lion, Signum, Muon; SGD where gradients do not depend on the
    norm) let ||w||^2 grow by the long-run variance h^2 C per step, ||w||^2 = h^2 C (n + start); one update's square is
    the share nu of C (`update_variance_ratio`), so angle = sqrt(nu/(n + start)): the rate h has dropped out. For AdamW
    at beta1 = 0.9 that is sqrt(0.053/n). SGD on scale-invariant weights (||g|| = c/||w||): ||w||^4 grows by 2 lr^2 c^2
    per step and angle = sqrt(nu/(2 (n + start))). In both cases the step itself stretches the norm by
    s^2 = (1 + 1/(n + start))^p with p = 1 or 1/2, and cos = (1 + s^2 - nu (s^2-1))/(2 s).

    `start` is what the initial norm is worth in steps: norm0^2/(h^2 C) (AdamW: h^2 C = lr^2 d S; SGD: lr_e^2 g2), or
    norm0^4/(2 lr_e^2 c2); lr_e = lr/(1-momentum). Under a schedule take for n + start the sum of lr_s^2/lr_t^2 over the
    steps s before t, start included (p = 1; with p = 1/2 the same sum).

    Source: derived here. Accuracy: 1 % averaged over 50 steps once n exceeds 20 memories of the momentum (AdamW:
    0.65 memories over n, 3 % after 20, because its bias correction makes the first steps large). AdamW on
    scale-invariant weights is slower to get there: until gradients fade slowly against 1/(1-beta2), the second moment
    remembers larger ones and holds the norm back, so that the law reads low, by up to 10 % at n = 20/(1-beta2) and 3 %
    at 100/(1-beta2) for a small start (`adamw_trajectory` has the lag).

    Args:
        steps: Steps done before the one whose rotation is asked for, >= 0, any shape.
        variance_ratio: nu, E||u||^2 over its long-run variance.
        start: What the initial norm is worth, in steps, >= 0.
        scale_invariant_sgd: Weights under SGD whose gradients shrink as 1/||w||.

    Returns:
        Angles, rad/step, in the shape of `steps`.

    Raises:
        InputError: If steps + start is not above 1/(4 nu): the momentum has not filled up, and no such law holds.

    Example:
        >>> undecayed_angle([1_000, 4_000], 1 / 19).angle.round(5).tolist()
        [0.00724, 0.00363]
    """
    n = np.asarray(steps, dtype=np.float64)
    require(bool(np.all(np.isfinite(n) & (n >= 0))), "steps", steps, "finite numbers >= 0")
    nu = finite("variance_ratio", variance_ratio)
    require(nu > 0, "variance_ratio", variance_ratio, "a positive number")
    n = n + finite("start", start)
    require(
        bool(np.all(4 * nu * n > 1)), "steps + start", np.min(n), f"above 1/(4 variance_ratio) = {1 / (4 * nu):.3g}"
    )
    growth = np.expm1((0.5 if scale_invariant_sgd else 1.0) * np.log1p(1 / n))  # s^2 - 1
    stretch = np.sqrt(1 + growth)
    return Angles(np.asarray(angle_of_chord((nu * growth - (growth / (1 + stretch)) ** 2) / (2 * stretch))))
