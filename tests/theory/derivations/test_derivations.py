"""Each derived formula is what the law computes, and each proof can be printed."""

import math

import numpy as np
import pytest

import theory
from theory.derivations import DERIVED, derive
from theory.errors import InputError

SCALAR = {
    "adamw_equilibrium": [{"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.999), "d": 64, "noise_kurtosis": 3.0}],
    "angle_from_relative_update": [{"relative_update": 0.02, "lr": 0.01, "weight_decay": 0.1}],
    "arcsine": [{"rho": 0.3}, {"rho": -0.9}],
    "hyperball_angle": [{"lr": 0.05, "momentum": 0.9}],
    "lion_equilibrium": [],
    "normalized_momentum_equilibrium": [
        {"lr": 0.01, "weight_decay": 0.3, "momentum": 0.9},
        {"lr": 0.1, "weight_decay": 0.5, "momentum": 0.0},
    ],
    "sgd_equilibrium": [
        {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.9, "dampening": 0.0, "c2": 2.0},
        {"lr": 0.3, "weight_decay": 0.02, "momentum": 0.5, "dampening": 0.2, "c2": 0.7},
    ],
    "sgd_norm_step": [{"norm": 2.0, "grad_norm": 0.7, "lr": 0.1, "weight_decay": 0.05}],
}
CASES = [(law, inputs) for law, cases in SCALAR.items() for inputs in cases if law in DERIVED]


@pytest.mark.parametrize(("law", "inputs"), CASES)
def test_the_derived_formula_is_the_law(law, inputs):
    """Same real function, evaluated twice in float64: 1e-9 leaves room for cancellation in either form."""
    derived, computed = derive(law).evaluate(**inputs), getattr(theory, law)(**inputs)
    assert derived
    for field, value in derived.items():
        assert value == pytest.approx(float(getattr(computed, field)), rel=1e-9), field


@pytest.mark.parametrize("law", DERIVED)
def test_every_proof_can_be_read(law):
    proof = derive(law)
    assert proof.law == law
    assert hasattr(theory, law)
    assert len(proof.steps) >= 3
    text = proof.latex()
    assert text.count("{") == text.count("}")
    assert text.count("\\[") == text.count("\\]") == sum(len(step.equations) for step in proof.steps)
    assert proof.source in str(proof)


def test_unknown_law():
    with pytest.raises(InputError, match="one of"):
        derive("perpetual_motion")


def test_infinite_only_where_the_law_is():
    values = derive("normalized_momentum_equilibrium").evaluate(lr=1e-6, weight_decay=1e-3, momentum=0.99)
    assert all(math.isfinite(value) for value in values.values())
    assert np.all(np.array(list(values.values())) > 0)
