"""A normalisation with finite eps: only its gain feels the weights' size."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def derivation() -> Derivation:
    """Derive gain, defect and tangential gradient of y = x/sqrt(V + eps).

    Returns:
        The proof.
    """
    eps, variance, scale, log_scale = sp.symbols("epsilon V s l", positive=True)
    x, slope, upstream = sp.symbols("x p G", real=True)
    turn = sp.Symbol("alpha", real=True)
    output = scale * x / sp.sqrt(scale**2 * variance + eps)
    exact = sp.limit(output, eps, 0)
    gain = sp.simplify(output / exact)
    in_log = sp.log(gain).subs(scale, sp.exp(log_scale))
    defect = sp.factor(sp.simplify(sp.diff(in_log, log_scale).subs(log_scale, sp.log(scale))))
    along = sp.factor(sp.simplify(sp.diff(output, scale) * scale / output))
    turned = scale * (x + turn * slope) / sp.sqrt(scale**2 * (variance + turn * sp.Symbol("V'")) + eps)
    change = sp.diff(turned, turn).subs(turn, 0)
    across = sp.expand(upstream * change).subs(upstream * x, 0)
    shrinking = sp.simplify(across / sp.limit(across, eps, 0))
    floor = sp.solve(sp.Eq(scale**2 * variance, eps), scale)[0]
    return Derivation(
        law="finite_eps",
        setting=r"$y = x/\sqrt{V+\epsilon}$, $x$ linear in the weights, whose scale is $s$: $x \to sx$, $V \to s^2V$; "
        r"upstream gradient $G = \partial L/\partial y$.",
        steps=(
            Step(
                "Weights at scale $s$; without eps the scale drops out, and what is left of it is a gain.",
                (sp.Eq(sp.Symbol("y"), output), sp.Eq(sp.Symbol("y_0"), exact), sp.Eq(sp.Symbol("gain"), gain)),
            ),
            Step(
                r"$\langle w, \partial L/\partial w\rangle = \partial L/\partial\ln s = \langle G, y\rangle\, "
                r"\partial\ln y/\partial\ln s$: the defect is the logarithmic slope of the output, which is that of the gain.",
                (sp.Eq(sp.Symbol("defect"), along), sp.Eq(sp.Symbol("defect"), defect)),
            ),
            Step(
                r"Turn the weights by $\alpha$: $x$ changes by $p$, $V$ by $V'$. For $G$ orthogonal to $y$ the term of the "
                r"variance drops out, and the tangential gradient is the gain times that of an exact normalisation.",
                (
                    sp.Eq(sp.Symbol("dy/dalpha"), sp.simplify(change)),
                    sp.Eq(sp.Symbol("G dy/dalpha"), sp.simplify(across)),
                    sp.Eq(sp.Symbol("gain"), shrinking),
                ),
            ),
            Step("Variance and eps are equal at the scale", (sp.Eq(sp.Symbol("s_floor"), floor),)),
        ),
        result={"gain": gain, "defect": defect, "floor_scale": floor},
        inputs={"eps": eps, "variance": variance, "scale": scale},
        source="derived here",
    )
