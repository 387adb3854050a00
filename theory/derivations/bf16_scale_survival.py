"""Multiplying rounded weights by a factor just below 1: when every one of them is rounded back."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def derivation(bits: int = 8) -> Derivation:
    """Derive the threshold below which decay does nothing, and the share of weights that a factor changes.

    Args:
        bits: Significant bits, the leading one included (8: bfloat16).

    Returns:
        The proof.
    """
    p, k = sp.symbols("p k", integer=True, positive=True)
    factor, y, m = sp.symbols("f y m", positive=True)
    shrink, least = sp.symbols("delta_m delta_{min}", positive=True)
    bottom, top = 2 ** (p - 1), 2**p - 1
    half_above, half_below = sp.Rational(1, 2), sp.Rational(1, 4)
    inside = sp.Eq(m * shrink, half_above)
    lowest = sp.Eq(bottom * least, half_below)
    threshold = sp.powsimp(sp.solve(lowest, least)[0])
    others = sp.solve(inside, shrink)[0].subs(m, top)
    margin = sp.simplify(others / threshold)
    exponent = sp.floor(sp.log(y) / sp.log(2))
    spacing = 2 ** (exponent - (p - 1))
    rounded = spacing * sp.floor(y / spacing + sp.Rational(1, 2))
    after = rounded.subs(y, k * factor)
    changed = sp.Sum(sp.sign(k - after), (k, bottom, top)) / (top - bottom + 1)
    change = sp.Sum(1 - after / k, (k, bottom, top)) / (top - bottom + 1) / (1 - factor)
    return Derivation(
        law="bf16_scale_survival",
        setting=r"Weights of $p$ significant bits, one binade: whole numbers $k$ from $2^{p-1}$ to $2^p-1$, all equally likely; "
        r"multiplied by $f = 1-\delta$ and rounded to the nearest.",
        steps=(
            Step(
                r"Inside the binade the spacing is 1: $m$ comes back if $m\delta$ is at most half of that, up to $\delta_m$.",
                (inside, sp.Eq(shrink, sp.solve(inside, shrink)[0])),
            ),
            Step(
                r"Below its lowest weight the spacing is half as wide, so that this one is the first to move,",
                (lowest, sp.Eq(least, threshold)),
            ),
            Step(
                r"before the largest one inside, $m = 2^p-1$. Their thresholds have the ratio, above 1,",
                (sp.Eq(shrink / least, margin, evaluate=False),),
            ),
            Step(
                r"At any factor: the spacing at $y$ follows from its exponent; rounding, and the two means over the binade.",
                (
                    sp.Eq(sp.Symbol("RN(y)"), rounded),
                    sp.Eq(sp.Symbol("changed"), changed),
                    sp.Eq(sp.Symbol("change"), change),
                ),
            ),
        ),
        result={"fraction_changed": changed.subs(p, bits), "mean_relative_change": change.subs(p, bits)},
        inputs={"factor": factor},
        source="derived here",
    )
