"""Bias and variance of one-pass SGD: the moments' recursion is linear, so that its sources add."""

import sympy as sp

from theory.derivations import least_squares_trajectory
from theory.derivations.derivation import Derivation, Step


def risk(eigenvalues: tuple[sp.Symbol, ...], second: tuple[sp.Expr, ...]) -> sp.Expr:
    """Excess risk of second moments.

    Args:
        eigenvalues: h of each coordinate.
        second: E delta^2 of each.

    Returns:
        Half the sum of their products.

    Example:
        >>> risk(sp.symbols("h_1 h_2"), sp.symbols("C_1 C_2"))
        C_1*h_1/2 + C_2*h_2/2
    """
    return sum((h * c / 2 for h, c in zip(eigenvalues, second, strict=True)), start=sp.Integer(0))


def derivation(dimensions: int = 2, steps: int = 2) -> Derivation:
    """Derive the split of the excess risk into what the start and what the labels' noise leaves.

    Args:
        dimensions: Number of coordinates, 1 or more.
        steps: Number of steps; the formulas hold after the last one.

    Returns:
        The proof.
    """
    n = least_squares_trajectory.names(dimensions)
    coordinates = least_squares_trajectory.one_step(dimensions)
    whole = least_squares_trajectory.derivation(dimensions, steps)
    parts = [tuple(sp.Symbol(f"{c.name}^{part}", positive=True) for c in n.second) for part in "bv"]
    both = {c: bias + variance for c, bias, variance in zip(n.second, *parts, strict=True)}
    still = dict.fromkeys((*n.target, *n.mean), 0)
    defects, shown = [], []
    for c, name in zip(coordinates, n.second, strict=True):
        bias = c.second.subs(dict(zip(n.second, parts[0], strict=True)) | {n.noise: 0})
        variance = c.second.subs(dict(zip(n.second, parts[1], strict=True)) | still)
        defects.append(sp.expand(c.second.subs(both) - bias - variance))
        shown += [sp.Eq(sp.Symbol(f"{name}^b'"), bias), sp.Eq(sp.Symbol(f"{name}^v'"), variance)]
    split = {
        f"{part}{suffix}": formula.subs(zero)
        for suffix, formula in (("", whole.result["excess"]), ("_average", whole.result["excess_average"]))
        for part, zero in (("bias", {n.noise: 0}), ("variance", dict.fromkeys(n.target, 0)))
    }
    names = {name: sp.Symbol(name, real=True) for name in ("Z", "Y", "s", "p", "C'")}
    halves = [{names[x]: sp.Symbol(f"{x}^{part}", real=True) for x in ("Z", "Y", "C'")} for part in "bv"]
    halves[1] |= {names["s"]: 0, names["p"]: 0}
    added = {x: halves[0][x] + halves[1][x] for x in (names["Z"], names["Y"], names["C'"])}
    of_sum = [
        sp.expand(e.rhs.subs(added) - sum(e.rhs.subs(half) for half in halves)) for e in whole.steps[4].equations[1:]
    ]
    return Derivation(
        law="bias_variance",
        setting=r"One-pass SGD with decay as in law `least\_squares\_trajectory`: $m = E\delta$, $C = E\delta^2$, start "
        r"$m = -w^*$, $C = w^{*2}$, labels' noise $\sigma^2$.",
        steps=(
            Step(
                "One step of the second moments.",
                tuple(sp.Eq(sp.Symbol(f"{c}'"), step.second) for c, step in zip(n.second, coordinates, strict=True)),
            ),
            Step(
                r"The same without labels' noise ($C^b$), and with it from the right weights, $w^* = m = 0$ ($C^v$).",
                tuple(shown),
            ),
            Step(
                r"The step of a sum $C = C^b + C^v$ is the sum of both steps; the difference is",
                tuple(sp.Eq(sp.Symbol(f"Delta_{i}"), defect) for i, defect in enumerate(defects, start=1)),
            ),
            Step(
                r"So do the moments $Z = E[S\delta]$ and $Y = E[S^2]$ of the iterates' sum, $p = E S = 0$ in the variance.",
                (
                    *whole.steps[4].equations[1:],
                    *(sp.Eq(sp.Symbol(f"Delta_{x}"), defect) for x, defect in zip("ZY", of_sum, strict=True)),
                ),
            ),
            Step(
                r"The start $C = w^{*2}$ is all bias, so both parts add up to the whole at every step. The risk is linear in "
                r"them: without labels' noise it is the bias, from right weights, $w^* = 0$, the variance.",
                (
                    sp.Eq(sp.Symbol("bias"), risk(n.h, parts[0])),
                    sp.Eq(sp.Symbol("variance"), risk(n.h, parts[1])),
                ),
            ),
        ),
        result=split,
        inputs=dict(whole.inputs),
        source="Dieuleveut and Bach, arXiv 1408.0361; Zou et al., arXiv 2103.12692; exact split derived here",
    )
