"""Transfer rules: what each of them keeps, solved for the new decay."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step
from theory.derivations.timescale import derivation as memory
from theory.errors import require

RULES = ("constant_epochs", "constant_fraction", "tokens_per_parameter", "constant_rotation", "sqrt_width")
LR_RULES = ("sqrt", "linear", "fixed")
_SOURCES = {
    "constant_epochs": "Wang and Aitchison, arXiv 2405.13698",
    "constant_fraction": "folklore of one-pass training; Wang and Aitchison, arXiv 2405.13698",
    "tokens_per_parameter": "Bergsma et al., arXiv 2505.13738",
    "constant_rotation": "Kosson et al., arXiv 2305.17212",
    "sqrt_width": "Fan et al., arXiv 2510.15262",
}


def derivation(rule: str = "constant_epochs", lr_rule: str = "sqrt") -> Derivation:
    """Derive learning rate and decay of a changed run from the quantity that a rule keeps.

    Args:
        rule: One of the law's rules. Inputs `have`: (lr, weight_decay, batch_size, steps, width, dataset_size), `want`:
            (batch_size, steps, width, dataset_size, tokens_per_parameter_ratio), the last only where the rule uses it.
        lr_rule: sqrt, linear or fixed, of the learning rate in the batch size.

    Returns:
        The proof.

    Raises:
        InputError: If a rule is unknown.
    """
    require(rule in RULES, "rule", rule, f"one of {', '.join(RULES)}")
    require(lr_rule in LR_RULES, "lr_rule", lr_rule, f"one of {', '.join(LR_RULES)}")
    names = "eta lambda B T d N"
    have = eta, lam, batch, run, width, data = sp.symbols(names, positive=True)
    new = new_eta, new_lam, *sizes = sp.symbols(" ".join(f"{name}'" for name in names.split()), positive=True)
    changed = dict(zip(have, new, strict=True))
    tokens, tpp, exponent = sp.symbols("k_TPP TPP gamma", positive=True)

    times = memory()
    inputs = {**times.inputs}
    plain = {inputs["momentum"]: 0, inputs["dampening"]: 0}
    own = {inputs["lr"]: eta, inputs["weight_decay"]: lam, inputs["batch_size"]: batch}
    own |= {inputs["dataset_size"]: data, inputs["steps"]: run}
    time = {name: sp.simplify(value.subs(plain).subs(own, simultaneous=True)) for name, value in times.result.items()}

    noise = {"sqrt": eta**2 / batch, "linear": eta / batch, "fixed": eta}[lr_rule]
    kept_lr = noise * width ** {"sqrt": 2, "linear": 1, "fixed": 1}[lr_rule]
    lr = sp.solve(sp.Eq(kept_lr.subs(changed), kept_lr), new_eta)[0]
    kept = {
        "constant_epochs": time["epochs"],
        "constant_fraction": time["fraction_of_run"],
        "tokens_per_parameter": time["fraction_of_run"] * tpp**exponent,
        "constant_rotation": time["steps"],
        "sqrt_width": sp.sqrt(eta / lam) * width ** sp.Rational(3, 4),
    }[rule]
    conserved = sp.Eq(kept.subs(changed | {tpp: tokens * tpp}, simultaneous=True), kept)
    alone = sp.symbols("eta_d lambda_d", positive=True)  # at the new width and the old batch
    between = {new_eta: alone[0], new_lam: alone[1]} if rule == "sqrt_width" else {}
    conserved = conserved.subs(between)
    only_width = lr.subs(changed[batch], batch)
    shrink = sp.simplify(sp.solve(conserved, alone[1] if between else new_lam)[0] * (alone[0] if between else new_eta))
    shrink = sp.simplify(shrink.subs(alone[0], only_width))
    decay = sp.simplify(shrink / lr)
    number = {exponent: sp.Rational(527, 1000)}
    means = {
        "constant_epochs": r"memory in epochs, $\tau B/N$,",
        "constant_fraction": r"memory as a fraction of the run, $\tau/T$,",
        "tokens_per_parameter": r"memory as a fraction of the run, which falls as $TPP^{-\gamma}$ (fitted, "
        r"$\gamma = 0.527$),",
        "constant_rotation": r"memory in steps, and with it the rotation per step,",
        "sqrt_width": r"top singular value of a sublayer, seen to go as $\sqrt{\eta/\lambda}\,d^{3/4}$,",
    }[rule]
    why = {
        "sqrt": r"the noise of Adam's updates, of variance $\eta^2$ each, per sample",
        "linear": "the drift of SGD per sample",
        "fixed": "the learning rate itself",
    }[lr_rule]
    use_tokens = rule == "tokens_per_parameter"
    return Derivation(
        law="transfer",
        setting=r"Decoupled decay; batch $B$, steps $T$, width $d$, data $N$, primes after the change; "
        r"$\tau = 1/(\eta\lambda)$ (law `timescale`).",
        steps=(
            Step(
                rf"The learning rate keeps {why}, and under $\mu$P what an update does to the output, $\propto \eta d$.",
                (sp.Eq(kept_lr.subs(changed), kept_lr), sp.Eq(new_eta, lr)),
            ),
            Step(
                f"The rule keeps the {means} the same."
                + (r" It speaks of width alone, $\eta_d$ and $\lambda_d$ at the old batch:" if between else ""),
                (*([sp.Eq(alone[0], only_width)] if between else []), conserved),
            ),
            Step(
                (
                    r"Solve for $\eta_d\lambda_d$, which a change of batch leaves"
                    if between
                    else r"Solve for $\eta'\lambda'$"
                )
                + "; the decay is what is left.",
                (
                    *([sp.Eq(alone[0] * alone[1], shrink)] if between else []),
                    sp.Eq(new_eta * new_lam, shrink),
                    sp.Eq(new_lam, decay),
                ),
            ),
        ),
        result={"lr": lr, "weight_decay": decay.subs(number)},
        inputs={"have": sp.Tuple(*have), "want": sp.Tuple(*sizes, *([tokens] if use_tokens else []))},
        source=_SOURCES[rule],
    )
