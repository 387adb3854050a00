"""Equilibrium proofs: the derived formulas are the laws, and the equations of every proof hold together."""

import inspect
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import theory
from theory.derivations import (
    adam_l2_equilibrium,
    adamw_equilibrium,
    adamw_equilibrium_gaussian,
    adamw_signal_noise,
    angle_from_norms,
    angle_from_relative_update,
    arcsine,
    cautious_equilibrium,
    correlated_equilibrium,
    decoupled_equilibrium,
    hyperball_angle,
    invariance_defect,
    lion_equilibrium,
    matrix_arcsine,
    rescaled_hyperparameters,
    sgd_equilibrium,
    sgd_norm_step,
    signum_equilibrium,
)

MODULES = (
    adam_l2_equilibrium, adamw_equilibrium, adamw_equilibrium_gaussian, adamw_signal_noise, angle_from_norms,
    angle_from_relative_update, arcsine, cautious_equilibrium, correlated_equilibrium, decoupled_equilibrium,
    hyperball_angle, invariance_defect, lion_equilibrium, matrix_arcsine, rescaled_hyperparameters, sgd_equilibrium,
    sgd_norm_step, signum_equilibrium,
)  # fmt: skip


@cache
def prove(module, **variant):
    return module.derivation(**variant)


def draw(rng, low, high):
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def rates(rng, low=1e-3, high=0.3):
    """A learning rate and a decay whose product lies in [low, high], where arccos keeps ten digits of the angle."""
    lr = draw(rng, 0.01, 1.0)
    return {"lr": lr, "weight_decay": draw(rng, low, high) / lr}


def betas(rng, low=0.05):
    return (rng.uniform(0.0, 0.95), rng.uniform(low, 0.995))


def walk(rng, steps):
    """Norms along a heavy-ball run in five dimensions with gradients orthogonal to the weights."""
    inputs = {**rates(rng), "momentum": rng.uniform(0.1, 0.9)}
    w, buffer = rng.normal(size=5), np.zeros(5)
    sizes = [float(np.linalg.norm(w))]
    for _ in range(steps):
        g = rng.normal(size=5)
        buffer = inputs["momentum"] * buffer + g - (g @ w) / (w @ w) * w + inputs["weight_decay"] * w
        w = w - inputs["lr"] * buffer
        sizes.append(float(np.linalg.norm(w)))
    return {"norms": tuple(sizes), **inputs}


# law, keywords of the proof, an input point, further inputs of the law
FORMULAS = [
    (sgd_norm_step, {}, lambda rng: {"norm": draw(rng, 0.1, 10), "grad_norm": draw(rng, 0.1, 10), **rates(rng)}, {}),
    *((angle_from_norms, {"steps": n}, lambda rng, n=n: walk(rng, n), {}) for n in (1, 2, 4)),
    *(
        (
            rescaled_hyperparameters,
            {"optimizer": name},
            lambda rng: {**rates(rng), "eps": draw(rng, 1e-9, 1e-2), "scale": draw(rng, 0.1, 10)},
            {"optimizer": name},
        )
        for name in ("sgd", "adam_l2", "adamw", "lion", "signum", "muon")
    ),
    (angle_from_relative_update, {}, lambda rng: {"relative_update": rng.uniform(0.3, 0.5), **rates(rng)}, {}),
    *(
        (
            decoupled_equilibrium,
            {"lags": n},
            lambda rng, n=n: {
                "update_autocovariance": tuple((rng.uniform(0.1, 0.7) ** np.arange(n + 1)).tolist()),
                "lr_update": draw(rng, 0.01, 1),
                **rates(rng),
            },
            {},
        )
        for n in (0, 2, 5)
    ),
    (
        sgd_equilibrium,
        {},
        lambda rng: {
            "momentum": rng.uniform(0.1, 0.95),
            "dampening": rng.uniform(0, 0.9),
            "c2": draw(rng, 0.1, 9),
            **rates(rng),
        },
        {},
    ),
    (
        sgd_equilibrium,
        {"scale_invariant": False},
        lambda rng: {
            "momentum": rng.uniform(0.1, 0.95),
            "dampening": rng.uniform(0, 0.9),
            "g2": draw(rng, 0.1, 9),
            **rates(rng),
        },
        {},
    ),
    *(
        (
            sgd_equilibrium,
            {"nesterov": True, "scale_invariant": second == "c2"},
            lambda rng, second=second: {"momentum": rng.uniform(0.1, 0.95), second: draw(rng, 0.1, 9), **rates(rng)},
            {"nesterov": True},
        )
        for second in ("c2", "g2")
    ),
    (
        adamw_equilibrium,
        {},
        lambda rng: {"betas": betas(rng, 0.9), "d": 100, "noise_kurtosis": rng.uniform(1, 4), **rates(rng)},
        {},
    ),
    (arcsine, {}, lambda rng: {"rho": rng.uniform(-1, 1)}, {}),
    (signum_equilibrium, {}, lambda rng: {"momentum": rng.uniform(0, 0.95), "d": 10, **rates(rng)}, {}),
    (lion_equilibrium, {}, lambda rng: {"betas": betas(rng), "d": 10, **rates(rng)}, {}),
    (hyperball_angle, {}, lambda rng: {"lr": draw(rng, 0.02, 2.0), "momentum": rng.uniform(0, 0.98)}, {}),
    (cautious_equilibrium, {"momentum": False}, lambda rng: {"d": 10, **rates(rng)}, {"momentum": 0.0}),
    *(
        (
            correlated_equilibrium,
            {"scale_invariant": flag},
            lambda rng: {"rho": rng.uniform(-0.9, 0.95), "momentum": rng.uniform(0, 0.95), **rates(rng)},
            {"scale_invariant": flag},
        )
        for flag in (True, False)
    ),
    (adamw_signal_noise, {}, lambda rng: {"snr": rng.uniform(-2, 2), "betas": betas(rng, 0.9), **rates(rng)}, {}),
]


@pytest.mark.parametrize(("module", "variant", "point", "further"), FORMULAS)
def test_the_formula_is_the_law(module, variant, point, further):
    """The same real function in float64: 1e-9 is arccos' cancellation at the smallest angle drawn, 0.01 rad."""
    proof = prove(module, **variant)
    assert proof.result
    rng = np.random.default_rng(0)
    for _ in range(2):
        inputs = point(rng)
        wanted = inputs.keys() & inspect.signature(getattr(theory, proof.law)).parameters.keys()
        assert wanted == inputs.keys() >= proof.inputs.keys()
        computed = getattr(theory, proof.law)(**inputs, **further)
        for field, value in proof.evaluate(**inputs).items():
            law = np.atleast_1d(getattr(computed, field))[-1]
            assert value == pytest.approx(float(law), rel=1e-9, abs=1e-15), field


BASE = {"eta": 0.3, "lambda": 0.2}
BETAS = {"beta_1": 0.6, "beta_2": 0.9}
SAMPLE = {"g": 0.1, "m": 0.2, "w": 0.3, "xi": 0.4}
POINT = {"w_t": 0.3, "w_{t-1}": -0.2, "g_t": 0.5, "g_{t-1}": 0.1}
UNITS = {"epsilon": 0.1, "s": 3.0, "v": 0.7, "w": 0.4, "g": 0.6}
NORMS = {"r_0": 1.0, "r_1": 1.1, "r_2": 0.9, "r_3": 1.2, "R_t": 1.0, "P_{t-1}": 0.9}
# law, keywords of the proof, where its equations start from, how many of them say something twice
CHAINS = [
    (sgd_norm_step, {}, {"r": 1.3, "gamma": 0.7}, 1),
    (angle_from_relative_update, {}, {"rho": 0.4, "R": 2.0}, 2),
    (angle_from_norms, {"steps": 3}, {"mu": 0.7, **NORMS, **POINT}, 0),
    *((rescaled_hyperparameters, {"optimizer": name}, UNITS, 2) for name in ("sgd", "adam_l2", "adamw", "lion")),
    (decoupled_equilibrium, {}, {"h": 0.4}, 2),
    (sgd_equilibrium, {}, {"mu": 0.7, "kappa": 0.6, "c^2": 2.0, "g^2": 1.7, **POINT}, 7),
    (sgd_equilibrium, {"nesterov": True}, {"mu": 0.7, "c^2": 2.0, "g^2": 1.7, **POINT}, 7),
    (adamw_equilibrium, {}, {**BETAS, "kappa_4": 2.5, "d": 10.0}, 3),
    (signum_equilibrium, {}, {"beta": 0.7, "d": 10.0, "k": 3}, 2),
    (lion_equilibrium, {}, {**BETAS, "d": 10.0, "k": 3}, 2),
    *(
        (correlated_equilibrium, {"scale_invariant": flag}, {"beta": 0.6, "rho": 0.5, **SAMPLE}, 6)
        for flag in (False, True)
    ),
    (adamw_signal_noise, {}, {**BETAS, "s": 0.7, "xi": -0.3}, 2),
    (adam_l2_equilibrium, {}, {**BETAS, "p": 0.5, "n": 7.0}, 3),
    (hyperball_angle, {}, {"beta": 0.7}, 4),
]


@pytest.mark.parametrize(("module", "variant", "values", "redundant"), CHAINS)
def test_the_equations_of_a_proof_hold_together(module, variant, values, redundant, follow):
    """Wherever a proof states more than it needs (an equation and its solution), both agree at a point."""
    proof = prove(module, **variant)
    functions = {"C": lambda k: sp.Rational(1, 2) ** k} if module is decoupled_equilibrium else {}
    found, tested = follow(proof.steps, BASE | values, functions)
    assert tested >= redundant
    if module is rescaled_hyperparameters:
        assert found["(sw)_+"] == pytest.approx(values["s"] * found["w_+"], rel=1e-12)


@pytest.mark.parametrize("module", MODULES)
def test_a_proof_prints_and_needs_no_torch(module):
    """Balanced braces and brackets are what LaTeX needs to compile a formula at all."""
    proof = prove(module)
    assert module.__name__.endswith(proof.law)
    text = proof.latex()
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")
    assert text.count("$") % 2 == 0
    assert text.count(r"\[") == sum(len(step.equations) for step in proof.steps) > 2
    assert not any(equation in (sp.true, sp.false) for step in proof.steps for equation in step.equations)
    assert "torch" not in [
        line.split()[1]
        for line in Path(module.__file__).read_text().splitlines()
        if line.startswith(("import", "from"))
    ]
