"""Adam with coupled L2: each coordinate is SGD with momentum whose decay is divided by its own second moment."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_equilibrium import stationary_gain


def derivation(leading: bool = False) -> Derivation:
    """Derive the self-consistent equations for equal coordinates, and their limit for weak decay.

    The equations are of fifth degree in the root of the second moment, so norm and angle have no formula in the inputs;
    solved in terms of that root they do, and weak decay leaves one.

    Args:
        leading: Put the weak-decay formulas into `result`, which is empty otherwise.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    s, n, v, p, r = sp.symbols("s n v p r", positive=True)
    squared, gain, c = sp.symbols("R K c", positive=True)
    linear = stationary_gain()
    scaled = {linear.kappa: 1 - b1, linear.momentum: b1, lam: lam / p}
    gain_scaled, cosine = (sp.factor(f.subs(scaled, simultaneous=True)) for f in (linear.gain, linear.cosine))
    moment = sp.Eq(v, s**2 / squared + lam**2 * r)
    variance = sp.Eq(r, gain * s**2 / (squared * v))
    noise = sp.solve(moment, s)[-1] ** 2
    of_root = sp.factor(sp.solve(variance.subs(s**2, noise).subs({gain: gain_scaled, v: p**2}), r)[0])
    scale = sp.sqrt(sp.factor(noise.subs({squared: n * r, v: p**2}).subs(r, of_root)))

    weak_gain = sp.limit(eta * c * sp.factor(gain_scaled / eta).subs(lam, c * lam), c, 0)
    weak_root = sp.sqrt(moment.rhs.subs(lam, 0))
    balance = sp.Eq(squared, n * (weak_gain * s**2 / (squared * v)).subs(v, p**2).subs(p, weak_root))
    cube = sp.simplify(sp.solve(sp.factor(balance.rhs - balance.lhs), squared)[0])
    chord = (1 - cosine).subs(p, weak_root).subs(squared, cube)
    weak = {"norm": sp.sqrt(cube), "angle": sp.sqrt(2 * sp.factor(chord))}
    return Derivation(
        law="adam_l2_equilibrium",
        setting=r"torch.optim.Adam with `weight\_decay` on $n$ equal coordinates of scale-invariant weights: $m$ and $v$ "
        r"average $g + \lambda w$ and its square, $w' = w - \eta m/\sqrt{v}$; $E g_i^2 = s^2/R$, $1-\beta_2 \ll 1$.",
        steps=(
            Step(
                r"The second moment of noise and decay, with $r = E w_i^2$, $R = nr$; $p = \sqrt{v}$ is nearly constant.",
                (moment, sp.Eq(squared, n * r), sp.Eq(p, sp.sqrt(v))),
            ),
            Step(
                r"So each coordinate is SGD with momentum $\beta_1$, dampening $\beta_1$, gradient $g/p$ and decay "
                r"$\lambda/p$: the gain and cosine of law `sgd\_equilibrium`.",
                (sp.Eq(gain, gain_scaled), variance, sp.Eq(sp.Symbol("cos"), cosine)),
            ),
            Step(
                "Given $p$, both equations are linear in what is left: solve for $r$, then for the $s$ it belongs to.",
                (sp.Eq(r, of_root), sp.Eq(s, scale)),
            ),
            Step(
                r"Weak decay: $v = s^2/R$, $K$ to leading order in $\lambda$, so that",
                (balance.subs(squared, sp.Symbol("R_0", positive=True)), sp.Eq(sp.Symbol("R_0", positive=True), cube)),
            ),
            Step(
                r"and the angle is $\sqrt{2(1-\cos)}$.",
                (sp.Eq(sp.Symbol("angle_0"), weak["angle"]),),
            ),
        ),
        result=weak if leading else {},
        inputs={"lr": eta, "weight_decay": lam, "betas": sp.Tuple(b1, b2), "s_unit": s, "counts": n},
        source="derived here",
    )
