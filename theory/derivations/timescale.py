"""Decayed weights are an exponential average of updates; the length of its memory."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def long_run_shrink() -> tuple[tuple[Step, ...], sp.Expr, dict[str, sp.Symbol]]:
    """Derive what SGD's coupled decay takes per step in the long run, to first order.

    Returns:
        The steps, the shrink per step, and the symbols of momentum and dampening.
    """
    eta, lam = equilibrium_symbols()
    mu, tau = sp.Symbol("mu", nonnegative=True), sp.Symbol("tau", nonnegative=True)
    root, w, past, buffer = sp.symbols("x w_t w_{t-1} b_{t-1}")
    new = w - eta * (mu * buffer + (1 - tau) * lam * w)
    recursion = sp.expand(new.subs(buffer, (past - w) / eta))
    powers = sp.Eq(root**2, recursion.subs({w: root, past: 1}))
    gap = powers.rhs - powers.lhs
    undecayed = sp.solve(gap.subs(lam, 0), root)
    slope = sp.factor((-gap.diff(lam) / gap.diff(root)).subs({root: 1, lam: 0}))
    first = -lam * slope
    steps = (
        Step(
            r"Without a gradient, and the old buffer replaced by the old step, $(w_{t-1}-w_t)/\eta$,",
            (sp.Eq(sp.Symbol("w_{t+1}"), recursion),),
        ),
        Step(
            r"Powers $w_t = x^t$ solve it. Without decay the roots are",
            (powers, *(sp.Eq(sp.Symbol(f"x_{n}"), r) for n, r in enumerate(undecayed, start=1))),
        ),
        Step(
            r"Decay moves the larger one, $x = 1$; by the rule for implicit functions",
            (sp.Eq(sp.Symbol(r"dx/d\lambda"), slope), sp.Eq(sp.Symbol("rho_long"), first)),
        ),
    )
    return steps, first, {"momentum": mu, "dampening": tau}


def derivation() -> Derivation:
    """Derive the memory of the weights in steps, in epochs and as a fraction of the run.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    batch, data, run, age, u, w = sp.symbols("B N T k u w", positive=True)
    tau = sp.Symbol("tau_steps", positive=True)
    average = sp.collect(sp.expand((1 - eta * lam) * w - eta * u), w)
    share = sp.factor(average.coeff(u) * -lam)
    loss = sp.limit(sp.log((1 - eta * lam) ** age) / lam, lam, 0) * lam
    memory = sp.solve(sp.Eq(loss, -1), age)[0]
    steps, shrink, symbols = long_run_shrink()
    general = sp.factor(memory.subs(eta, shrink / lam))
    return Derivation(
        law="timescale",
        setting=r"Decoupled decay, $w' = (1-\eta\lambda)w - \eta u$; and SGD with momentum, coupled, "
        r"$b_t = \mu b_{t-1} + (1-\tau)\lambda w_t$, $w_{t+1} = w_t - \eta b_t$ where the gradient is 0.",
        steps=(
            Step(
                r"Both weights of $w' = (1-\rho)w + \rho(-u/\lambda)$ add up to 1: an exponential average of $-u/\lambda$.",
                (sp.Eq(sp.Symbol("w'"), average), sp.Eq(sp.Symbol("rho"), share)),
            ),
            Step(
                r"What is left of a value of age $k$ is $(1-\rho)^k$; to first order its logarithm, and the age at which "
                r"it is $-1$:",
                (sp.Eq(sp.Symbol("L"), loss), sp.Eq(sp.Symbol("tau_0"), memory)),
            ),
            *steps,
            Step(r"It takes the place of $\eta\lambda$; without momentum nothing changes.", (sp.Eq(tau, general),)),
            Step(
                "A pass over $N$ samples takes $N/B$ steps, the run $T$.",
                (sp.Eq(sp.Symbol("epochs"), general / (data / batch)), sp.Eq(sp.Symbol("fraction"), general / run)),
            ),
        ),
        result={"steps": general, "epochs": general * batch / data, "fraction_of_run": general / run},
        inputs={"lr": eta, "weight_decay": lam, "batch_size": batch, "dataset_size": data, "steps": run} | symbols,
        source="Wang and Aitchison, arXiv 2405.13698",
    )
