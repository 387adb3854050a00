"""Rotation under AdamW while the norm drifts, from lr*weight_decay, the drift, and how correlated the updates are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.equilibrium.adamw import second_moment_corrections
from theory.errors import finite, require
from theory.results import Angles, angle_of_chord


def adamw_drift_corrected_angle(
    drift: ArrayLike,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    *,
    scale_invariant: bool = True,
    noise_kurtosis: float = 3.0,
    variance_ratio: float | None = None,
) -> Angles:
    r"""Rotation of one AdamW step from lr*weight_decay and the drift of the norm, d log||w||/dt.

    Setting: torch.optim.AdamW, w' = a w - h u, white zero-mean noise. ||w'||^2 = e^(2d) ||w||^2 leaves
    (e^(2d) - a^2) ||w||^2 to the updates, of which only the share nu is one update's own square; the rest is its
    correlation with the updates that the weights have already taken. So ||h u||^2 = nu (e^(2d) - a^2) ||w||^2, and by
    the law of cosines cos = (a^2 + e^(2d) - nu (e^(2d) - a^2))/(2 a e^d); to leading order
    angle = sqrt(2 nu (lr wd + d log||w||/dt)). For an average of white noise nu = (1-c)/(1+c) U/S with c = a beta1 e^d
    (scale-invariant weights, where Adam enlarges old gradients as the norm grows) or a beta1, and with U/S the second
    moment's one-step over long-run correction (`second_moment_corrections`).

    Source: derived here; d = 0 is `adamw_equilibrium`. Accuracy: 1 % averaged over 50 steps while |d| <= (1-beta1)/10
    and, for scale-invariant weights, 1-beta2. Other decoupled optimizers (Lion, Muon) and correlated gradients: give
    `variance_ratio`, E||u||^2 over its long-run variance (`update_variance_ratio`, or measured); it does not know how
    far decay and drift get within the updates' memory, which adds half of memory*(lr wd + d) to the bar.

    Args:
        drift: ln(||w'||/||w||) of one step, or its average over several, any shape.
        lr: Learning rate.
        weight_decay: Decoupled coefficient; 0 <= lr*weight_decay < 1.
        betas: Adam's (beta1, beta2).
        scale_invariant: Whether gradients shrink as the norm grows.
        noise_kurtosis: Kurtosis of one coordinate's gradient.
        variance_ratio: nu, replaces what betas say, > 0.

    Returns:
        Angles, rad/step, in the shape of `drift`.

    Raises:
        InputError: If the norm shrinks faster than decay alone can make it, or grows faster than updates that are so
            correlated allow (lr*wd + drift above 2 nu).

    Example:
        >>> at_rest = adamw_drift_corrected_angle(0.0, lr=1e-3, weight_decay=0.1)
        >>> growing = adamw_drift_corrected_angle(3e-4, lr=1e-3, weight_decay=0.1)
        >>> round(growing.angle.item() / at_rest.angle.item(), 1)   # sqrt(1e-4 + 3e-4) over sqrt(1e-4)
        2.0
    """
    d = np.asarray(drift, dtype=np.float64)
    require(bool(np.all(np.isfinite(d))), "drift", drift, "finite numbers")
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    a = 1 - shrink
    ratio = np.exp(d)
    if variance_ratio is None:
        b1, b2 = finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0)
        one_step, long_run = second_moment_corrections((b1, b2), noise_kurtosis)
        memory = a * b1 * (ratio if scale_invariant else 1.0)
        require(bool(np.all(memory < 1)), "drift", np.max(d), "slow against the momentum: e^drift below 1/beta1")
        nu = (1 - memory) / (1 + memory) * one_step / long_run
    else:
        nu = finite("variance_ratio", variance_ratio)
        require(nu > 0, "variance_ratio", variance_ratio, "a positive number")
    pace = shrink + np.expm1(d)  # e^d - a, the part of the norm's step that decay does not explain
    require(bool(np.all(pace > -1e-12)), "drift", np.min(d), "at least what decay alone does")
    chord = (nu * pace * (ratio + a) - pace**2) / (2 * a * ratio)
    require(bool(np.all(chord > -1e-12)), "drift", np.max(d), "slow against the momentum: pace below 2 variance_ratio")
    return Angles(np.asarray(angle_of_chord(chord)))
