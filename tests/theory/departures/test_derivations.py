"""Each proof's formula is what the law computes, at random points, and its equations hold together."""

import numpy as np
import pytest

import theory
from theory.derivations import (
    adamw_drift_corrected_angle,
    drift_corrected_angle,
    finite_eps,
    finite_eps_equilibrium,
    radial_gradient,
    undecayed_angle,
)


def rates(rng):
    lr = np.exp(rng.uniform(-4, 0))
    return {"lr": lr, "weight_decay": np.exp(rng.uniform(-6, -1.5)) / lr}


CASES = [
    (
        drift_corrected_angle,
        {},
        lambda rng: {
            "drift": rng.uniform(0, 0.1),
            "momentum": rng.uniform(0.05, 0.95),
            "dampening": rng.uniform(0, 0.9),
            **rates(rng),
        },
        {},
    ),
    (
        adamw_drift_corrected_angle,
        {},
        lambda rng: {"drift": rng.uniform(0, 0.01), "betas": (rng.uniform(0, 0.9), 0.99), **rates(rng)},
        {"noise_kurtosis": 1.0},
    ),
    (
        adamw_drift_corrected_angle,
        {"measured": True},
        lambda rng: {"drift": rng.uniform(0, 0.05), "variance_ratio": rng.uniform(0.3, 1.5), **rates(rng)},
        {},
    ),
    (
        undecayed_angle,
        {},
        lambda rng: {"steps": rng.uniform(20, 90), "variance_ratio": rng.uniform(0.05, 1), "start": rng.uniform(0, 50)},
        {},
    ),
    (
        undecayed_angle,
        {"scale_invariant_sgd": True},
        lambda rng: {"steps": rng.uniform(20, 90), "variance_ratio": rng.uniform(0.05, 1), "start": rng.uniform(0, 50)},
        {"scale_invariant_sgd": True},
    ),
    (
        finite_eps,
        {},
        lambda rng: {"eps": rng.uniform(0.1, 3), "variance": rng.uniform(0.1, 3), "scale": rng.uniform(0.1, 3)},
        {},
    ),
    (
        finite_eps_equilibrium,
        {},
        lambda rng: {
            "c2": rng.uniform(0.5, 3),
            "floor": rng.uniform(0.1, 1),
            "pull": rng.uniform(-0.1, 0),
            **rates(rng),
        },
        {},
    ),
    (
        radial_gradient,
        {},
        lambda rng: {"radial": rng.uniform(-0.3, 0.3), "long_run": rng.uniform(0.5, 3), **rates(rng)},
        {},
    ),
    (
        radial_gradient,
        {"scale_invariant_sgd": True},
        lambda rng: {"radial": rng.uniform(-0.3, 0.3), **rates(rng)},
        {"scale_invariant_sgd": True},
    ),
]


@pytest.mark.parametrize(("module", "variant", "point", "further"), CASES)
def test_the_formula_is_the_law(module, variant, point, further):
    """The same real function in float64; 1e-9 leaves room for arccos' cancellation at angles of 0.02 and above."""
    proof, rng = module.derivation(**variant), np.random.default_rng(0)
    for _ in range(5):
        inputs = point(rng)
        assert inputs.keys() == proof.inputs.keys()
        computed = getattr(theory, proof.law)(**inputs, **further)
        for field, value in proof.evaluate(**inputs).items():
            assert value == pytest.approx(float(getattr(computed, field)), rel=1e-9), field
