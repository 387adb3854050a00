"""Proofs of dynamics, twins, over-training, memory and conventions, walked: equations agree with those before."""

import math

import pytest
import sympy as sp

import theory
from theory.derivations import (
    adamw_exponential_lr,
    adamw_trajectory,
    bias_variance,
    closed_form_norm,
    convert_decay,
    decay_convention_norm,
    direction_autocorrelation,
    effective_lr,
    ema_weights,
    eos_period,
    gradient_rise,
    label_noise_balance,
    label_noise_excess,
    least_squares_stationary,
    least_squares_trajectory,
    lion_exponential_lr,
    lion_exponential_schedule,
    noise_regulariser,
    relaxation_time,
    sgd_exponential_lr,
    sgd_exponential_schedule,
    sgd_trajectory,
    sphere_eos,
    time_to_eos,
    timescale,
    transfer,
)

BASE = {"eta": 0.3, "lambda": 0.2}
SHRINK, MU = 1 - 0.06, 0.2  # a at BASE; a momentum whose decay does not oscillate there
ALPHA = theory.sgd_exponential_lr(0.3, 0.2, MU).alpha
LION = (1 - 0.9 * SHRINK) / (1 - 0.9)  # k of Lion's twin at beta_2 = 0.9
_MIDDLE = 1 + 0.6 - 0.06 * 0.7  # roots of x^2 - _MIDDLE x + 0.6: coupled decay at mu = 0.6, tau = 0.3
ROOT = (_MIDDLE + math.sqrt(_MIDDLE**2 - 4 * 0.6)) / 2

FLOW = {**BASE, "eta_max": 0.5, "R": 1.7, "c": 2.0, "epsilon": 0.1, "kappa": 1.3, "r_0": 0.4, "w": 0.6, "u": -0.3}
FLOW |= {"T": 5.0}
SAMPLE = {"w": 0.3, "b": 0.2, "g": 0.5, "W": 2.0, "X": 0.3, "B": 1.2, "c^2": 0.7, "g^2": 0.9, "k": 0.8, "m": 0.7}
ADAM = {"W": 2.0, "X": 0.3, "M": 0.4, "V": 0.9, "beta_1": 0.6, "beta_2": 0.9, "d": 10.0, "t": 3, "S": 1.1, "U": 1.2}
AVERAGE = {"rho_0": 0.1, "rho_1": 0.2, "rho_2": 0.3, "z_0": 0.5, "z_1": -0.2, "z_2": 0.7, "w_0": 1.1, "rho": 0.2}
AVERAGE |= {"Sigma": 1.0, "a": 0.8, "T": 7, "G(t)": 2.5, "G(t + 1)": 3.0}
MEMORY = {"B": 7.0, "N": 90.0, "T": 50.0, "k": 4.0, "u": 0.3, "w": 0.8}
COUPLED = {"mu": 0.6, "tau": 0.3, "w_t": 0.4, "w_{t-1}": 0.3, "x": ROOT}
RUN = {**BASE, "B": 100.0, "B'": 220.0, "N": 900.0, "N'": 500.0, "T": 70.0, "T'": 90.0, "d": 30.0, "d'": 50.0}
RUN |= {"k_TPP": 1.4, "TPP": 20.0, "gamma": 0.527}
TWIN = {**BASE, "eta_t": 0.3, "eta_{t-1}": 0.25, "alpha_{t-1}": 0.9, "P_t": 0.8, "kappa": 1.0, "mu": MU, "eta_0": 0.3}
CONSTANT = {**TWIN, "eta_{t-1}": 0.3, "alpha_{t-1}": ALPHA, "P_t": ALPHA**2, "t": 2, "w_0": 0.7, "g_0": 0.4}
ADAM_TWIN = {"beta_1": 0.6, "beta_2": 0.9, "k_1^-": 1.1, "k_2^-": 1.3, "a_{t-1}": 0.95, "a_t": 0.9, "A_{t-1}": 0.8}
ADAM_TWIN |= {"epsilon": 0.01, "eta_t": 0.3, "m": 0.4, "z": 0.5, "t": 3, "a": 0.94}
LION_TWIN = {"beta": 0.9, "beta_1": 0.6, "k_{t-1}": 1.1, "a_{t-1}": 0.95, "a_t": 0.9, "A_{t-1}": 0.8, "eta_t": 0.3}
LION_TWIN |= {"w_t": 0.5, "u_t": 0.2}
LION_CONSTANT = {**BASE, **LION_TWIN, "beta_2": 0.9, "a_{t-1}": SHRINK, "a_t": SHRINK, "a": SHRINK, "k_{t-1}": LION}
LION_CONSTANT |= {"A_{t-1}": SHRINK**2, "t": 2}
SQUARES = {**BASE, "B": 3.0, "h_1": 0.3, "h_2": 0.2, "sigma^2": 0.7, "delta_1": 0.5, "delta_2": -0.4, "m_1": 0.3}
SQUARES |= {"m_2": -0.2, "C_1": 0.5, "C_2": 0.6, "w*_1": 1.0, "w*_2": -0.5, "Z": 0.2, "Y": 0.8, "s": 0.4, "q": 0.7}
SQUARES |= {"p": 0.2, "C'": 0.9, "Y_1": 0.3, "Y_2": 0.4, "t": 3.0}
NOISE = {**BASE, "sigma^2": 0.7, "h": 0.4, "n": 5.0, "x_1": 0.3, "x_2": -0.8, "delta": 0.2, "zeta": -0.1}
NOISE |= {"h_1": 0.3, "h_2": 0.2}

ENDS = {"constant": {"s": 1}, "linear": {"x": 0.3}, "warmup": {"x": 0.3}, "cosine": {"s": 0.6, "f": 0.2}}
ENDS |= {"invsqrt": {"s": 2.5, "y_1": 2.5}, "wsd": {"f": 0.3}}
PAIRS = (("decoupled", "corrected"), ("coupled", "independent"), ("cautious", "coupled"), ("scheduled", "cautious"))
# law, keywords of the proof, where its equations start from, how many of them say something twice
CHAINS = [
    *((closed_form_norm, {"kind": k}, FLOW | at, 0 if k in ("cosine", "wsd") else 1) for k, at in ENDS.items()),
    *(
        (decay_convention_norm, {"convention": convention, "kind": "linear"}, FLOW | {"s": 0.6}, 0)
        for convention in decay_convention_norm.CONVENTIONS
    ),
    *(
        (gradient_rise, {"kind": kind}, FLOW | {"r_0": 1, "s": 1, "f": 0, "z": 0.1}, 0)
        for kind in ("linear", "cosine")
    ),
    (relaxation_time, {}, {**BASE, "lambda": 0.02, "mu": 0.5, "X": 0.2, "B": 3.0, "Q": 0.7}, 0),
    (relaxation_time, {"optimizer": "adamw"}, {**BASE, "N": 0.4, "R": 1.1, "delta": 0.1, "n": 3}, 0),
    (relaxation_time, {"optimizer": "adam"}, {**BASE, "R": 1.7, "s": 0.8, "w": 0.6, "g": 0.3, "epsilon": 0.1}, 1),
    *((sgd_trajectory, {"nesterov": flag}, {**BASE, **SAMPLE, "mu": 0.7}, 0) for flag in (False, True)),
    (adamw_trajectory, {}, {**BASE, **ADAM}, 0),
    (ema_weights, {}, BASE | AVERAGE, 2),
    (timescale, {}, BASE | MEMORY | COUPLED, 1),
    *((transfer, {"rule": rule}, RUN, 3) for rule in transfer.RULES),
    *((transfer, {"rule": "sqrt_width", "lr_rule": name}, RUN, 3) for name in ("linear", "fixed")),
    (direction_autocorrelation, {}, {**BASE, "a": 0.94, "beta": 0.7, "k": 3, "x": 0.94, "w_t": 0.3, "w_{t-1}": -0.2,
                                     "g_t": 0.5}, 4),
    *(
        (convert_decay, {"source": ours, "target": theirs}, {**BASE, "eta_max": 0.5, "w": 1.1, **COUPLED},
         2 if "coupled" in (ours, theirs) else 1)
        for ours, theirs in PAIRS
    ),
    (sgd_exponential_schedule, {}, TWIN, 3),
    (adamw_exponential_lr, {}, ADAM_TWIN, 7),
    (lion_exponential_schedule, {}, LION_TWIN, 4),
    (lion_exponential_lr, {}, LION_CONSTANT, 9),
    (sphere_eos, {}, {**BASE, "L": 2.0, "a": 0.9, "phi": math.acos(0.9) / 2, "mu": 0.6, "w": 0.5, "g": 0.3}, 5),
    (time_to_eos, {}, {**BASE, "mu": MU, "L": 0.5, "r_0": 3.0, "x": ALPHA, "rho": 0.06}, 2),
    (eos_period, {}, {"eta": 0.3, "L": 2.0, "a": 0.94, "rho": 0.06, "omega": math.sqrt(0.48)}, 1),
    (label_noise_balance, {}, {**BASE, "a": 0.94, "u": 0.5, "v": -0.3, "r": 0.4, "r^2": 0.16, "T": 6}, 0),
    (label_noise_excess, {}, NOISE, 1),
    (noise_regulariser, {}, {**NOISE, "B": 1.0, "u": 0.5, "v": 0.3}, 3),
    (least_squares_trajectory, {}, SQUARES, 0),
    (least_squares_stationary, {}, {**BASE, "B": 3.0, "h_1": 0.3, "sigma^2": 0.7, "S": 0.2, "h": 0.4}, 2),
    (bias_variance, {}, {**SQUARES, "C_1^b": 0.1, "C_1^v": 0.4, "C_2^b": 0.5, "C_2^v": 0.1}, 0),
    *((effective_lr, {"optimizer": name}, {"eta": 0.3, "r": 2.0, "gamma": 0.7}, 1) for name in ("sgd", "adamw")),
]  # fmt: skip


@pytest.mark.parametrize(("module", "variant", "values", "redundant"), CHAINS)
def test_the_equations_of_a_proof_hold_together(module, variant, values, redundant, follow):
    """Wherever a proof states more than it needs (an equation and its solution), both agree at a point."""
    found, tested = follow(module.derivation(**variant).steps, values)
    assert tested >= redundant
    same = {
        gradient_rise: [("r", "r_{end}")],
        label_noise_balance: [("D'/D", "f")],
        sphere_eos: [("f", "excess")],
        eos_period: [("R'/R", "f_R"), (r"\tan^2\varphi'/\tan^2\varphi", "f_S")],
    }
    for one, other in same.get(module, []):
        assert found[one] == pytest.approx(found[other], rel=1e-9), (one, other)


def test_sgd_twin_at_constant_rate(follow):
    steps = sgd_exponential_lr.derivation().steps
    found, tested = follow(steps[:-1], CONSTANT)
    assert tested >= 5
    assert found["alpha_t"] == pytest.approx(ALPHA, rel=1e-12)
    assert found["W_1"] == pytest.approx(found["w_1"] / ALPHA, rel=1e-9)


def test_nesterov_has_no_twin_with_decay(follow):
    """Without decay (a = 1) the four conditions hold together; with it the first contradicts the others."""
    (step,) = sgd_exponential_lr.derivation().steps[-1:]
    found, tested = follow([step], {"eta": 0.3, "a": 1.0, "mu": MU, "P_t": 0.8})
    assert tested >= 4
    assert found["Delta"] == pytest.approx(0, abs=1e-15)
    *_, unique = step.equations
    assert unique.rhs == 1
    with pytest.raises(AssertionError):
        follow([step], {"eta": 0.3, "a": 0.94, "mu": MU, "P_t": 0.8})
    delta = next(e.rhs for e in step.equations if str(e.lhs) == "Delta")
    names = {symbol.name: symbol for symbol in delta.free_symbols}
    assert abs(float(delta.subs({names["a"]: sp.Float(0.94), names["mu"]: MU}))) > 1e-4
