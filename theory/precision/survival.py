"""Does weight decay survive bfloat16? The factor of decoupled decay, and the sum of coupled decay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.errors import finite, require
from theory.precision.bf16 import normal_sizes, round_bf16, ulp
from theory.precision.rounding import gain


@dataclass(frozen=True)
class ScaleSurvival:
    """What multiplying bfloat16 weights by a factor just below 1 does to them."""

    fraction_changed: float
    """Share of the weights that change at all."""
    mean_relative_change: float
    """Mean relative change over the nominal one, 1 - factor; dimensionless, 1 if nothing were rounded."""


@dataclass(frozen=True)
class CoupledSurvival:
    """What is left of weight_decay*w after its addition to the gradient."""

    fraction: float
    """Share of the decay term, dimensionless."""


def bf16_scale_survival(factor: float) -> ScaleSurvival:
    """What `p.mul_(factor)` does to bfloat16 weights: below 2^-9 decay does nothing at all.

    Setting: the 128 mantissas of a binade, equally likely; product in float32 (the factor as float32, as torch does),
    then to bfloat16, nearest, ties to even. No weight changes if and only if 1 - factor <= 2^-9 = 0.00195, half the
    smallest relative spacing; likewise v.mul_(beta2) with beta2 >= 1 - 2^-9 never forgets. At 2^-8 138 % of the
    nominal decay happens. With p significant bits the threshold is 2^-(p+1).

    Source: derived here, enumeration. Exact (1e-5) for torch's kernels that round after the multiplication (for-loop
    and foreach; `fused` rounds once a step and keeps decay through `rounding_drift_gain`).

    Args:
        factor: 1 - lr*weight_decay, or beta2; in (0, 1).

    Returns:
        Share of weights changed, and the mean relative change over the nominal one.

    Raises:
        InputError: If the factor is not in (0, 1).

    Example:
        >>> bf16_scale_survival(1 - 2**-9).fraction_changed
        0.0
    """
    require(0 < finite("factor", factor) < 1, "factor", factor, "between 0 and 1, both excluded")
    mantissas = 1 + np.arange(128) / 128
    scaled = round_bf16(mantissas.astype(np.float32) * np.float32(factor))
    return ScaleSurvival(
        fraction_changed=float(np.mean(scaled != mantissas)),
        mean_relative_change=float(np.mean(1 - scaled / mantissas)) / (1 - factor),
    )


def coupled_l2_survival(ratio: float) -> CoupledSurvival:
    """Share of coupled decay that survives `g.add(w, alpha=weight_decay)` in bfloat16.

    Setting: gradient g ~ N(0, 1) on its grid, decay term N(0, ratio^2), sum rounded to nearest. The share is the
    regression of the rounded change on the term, E[RN(sz)z]/s = `rounding_drift_gain`(s) at s = ratio/ulp(g) (Stein),
    averaged over g. 100 % at ratio 2^-5, 80 % at 2^-9, 28 % at 2^-11, 7 % at 2^-13: small gradients, whose spacing is
    fine, still let it through.

    Source: derived here. Accuracy 3 %.

    Args:
        ratio: weight_decay * rms(w) / rms(g), dimensionless.

    Returns:
        The share.

    Raises:
        InputError: If the ratio is negative or not finite.

    Example:
        >>> round(coupled_l2_survival(2**-9).fraction, 2)
        0.8
    """
    spacing = ulp(normal_sizes())
    return CoupledSurvival(float(np.mean(gain(np.minimum(finite("ratio", ratio), 1e6) / spacing))))
