"""Proofs of precision: the derived formulas are the laws, and every step holds numerically."""

import math

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import quad
from scipy.stats import norm

import theory
from theory.derivations import (
    bf16_scale_survival,
    coupled_l2_survival,
    derive,
    residual_precision,
    rounding_diffusion,
    rounding_drift_gain,
    stochastic_rounding_equilibrium,
)
from theory.precision import bf16, residual, stochastic, survival
from theory.precision.rounding import gain, nearest_error


def equations(proof):
    """Right-hand sides by the name of the left-hand side, the last of each name."""
    return {str(e.lhs): e.rhs for step in proof.steps for e in step.equations}


def number(expression, plain, **values):
    return float(sp.lambdify([], plain(expression).subs(values), ["scipy", "numpy"])())


@pytest.mark.parametrize("module", [rounding_diffusion, rounding_drift_gain])
@pytest.mark.parametrize("fourier", [False, True])
def test_rounded_steps(module, fourier):
    """Two series for one function; at 0.15 ulp the Fourier series cancels to 1e-4 of its terms, which leaves 1e-11."""
    proof = module.derivation(fourier=fourier)
    (argument,) = proof.inputs
    for size in np.random.default_rng(0).uniform(0.15, 2.0, 6):
        law = getattr(theory, proof.law)(**{argument: size})
        for field, value in proof.evaluate(**{argument: size}).items():
            assert value == pytest.approx(getattr(law, field), rel=1e-9), size


def test_scaled_weights():
    """Factors of float32, as torch's kernels have them: products are then exact up to ties, which are not drawn."""
    proof = derive("bf16_scale_survival")
    rng = np.random.default_rng(0)
    factors = [float(np.float32(1 - d)) for d in 2.0 ** rng.uniform(-9.5, -3, 12)]
    for factor in factors:
        law = theory.bf16_scale_survival(factor)
        derived = proof.evaluate(factor=factor)
        assert derived["fraction_changed"] == law.fraction_changed
        assert derived["mean_relative_change"] == pytest.approx(law.mean_relative_change, rel=1e-9)


# The laws average over N = 4096 equally likely sizes instead of the normal density. One size on the wrong side of a
# power of two changes the mean of ulp^2 by 3*4^e/N: together, over the powers up to 4, at most 15/N of it, and half
# of that in a root.
AVERAGES = [
    *((coupled_l2_survival, {}, survival, 2.0**n) for n in (-4.3, -8.6, -11.1)),
    *((residual_precision, {"small": True}, residual, 2.0**n) for n in (-4.6, -7.2, -9.7)),
    *((residual_precision, {"small": False}, residual, ratio) for ratio in (0.06, 0.4)),
]


@pytest.mark.parametrize(("module", "variant", "home", "ratio"), AVERAGES)
def test_averages_over_binades(module, variant, home, ratio, monkeypatch):
    """The law is within 8/N of the derived integral, at 4096 sizes and at 64 times as many."""
    proof = module.derivation(**variant)
    ((field, derived),) = proof.evaluate(ratio=ratio).items()
    law = lambda: getattr(getattr(theory, proof.law)(ratio), field)
    assert law() == pytest.approx(derived, rel=8 / 4096)
    monkeypatch.setattr(home, "normal_sizes", lambda: bf16.normal_sizes(64 * 4096))
    assert law() == pytest.approx(derived, rel=8 / 4096 / 64)


def test_stochastic_rounding_solves_its_balance(plain):
    """r = r_0 + A/(1-a^2) with the derived V, spacing and density, iterated here by quadrature on every binade.

    The law's 4096 sizes are within 15/4096 of A, the integral that separates its norm from the unrounded one (above).
    """
    proof = equations(derive("stochastic_rounding_equilibrium"))
    # 60 terms: exp(-2 pi^2 n^2 s^2) of the last is 1e-30 at s = 0.03, the smallest size that occurs below
    series = plain(proof["V"]).replace(lambda e: isinstance(e, sp.Sum), lambda e: sp.Sum(e.function, ("n", 1, 60)))
    variance = sp.lambdify(sp.Symbol("s"), series, "numpy")
    spacing = sp.lambdify(sp.Symbol("e"), plain(proof["ulp_e"]), "numpy")
    for lr, decay, betas in ((1e-3, 0.5, (0.9, 0.95)), (3e-3, 1.0, (0.8, 0.99))):
        law = theory.stochastic_rounding_equilibrium(lr, decay, betas)
        exact = theory.adamw_equilibrium(lr, decay, betas, d=1).rms ** 2
        one_step = stochastic.second_moment_corrections(betas)[0] * (1 - betas[0]) / (1 + betas[0])
        r = exact
        for _ in range(30):  # the map contracts: A changes by a few per cent of what r does
            added = 0.0
            top = math.floor(math.log2(8 * math.sqrt(r)))
            for e in range(top - 14, top + 1):
                ulp = float(spacing(float(e)))
                x = np.polynomial.legendre.leggauss(40)
                w = 2.0**e * (1.5 + x[0] / 2)
                size = np.sqrt(lr**2 * one_step + (lr * decay * w) ** 2) / ulp
                value = np.where(size > 0.03, variance(np.maximum(size, 0.03)), stochastic.rounding_variance(size))
                added += 2 * float(x[1] @ (value * norm.pdf(w, scale=math.sqrt(r)))) * 2.0**e / 2 * ulp**2
            r = exact + added / (1 - (1 - lr * decay) ** 2)
        assert law.inflation > 1.0004
        assert law.rms**2 - exact == pytest.approx(r - exact, rel=15 / 4096)


WALKS = [
    (rounding_diffusion, {}, {"s": 0.35, "b": 0.5, "k": 3, "n": 2}, 2),
    (rounding_drift_gain, {}, {"s": 0.35, "b": 0.5, "e": 0.1, "n": 2}, 1),
    (bf16_scale_survival, {}, {"p": 8, "m": 255, "y": 300.7, "f": 0.995}, 3),
    (coupled_l2_survival, {}, {"r": 2.0**-7, "e": -1, "n": 2, "z": 0.3}, 0),
    *((residual_precision, {"small": flag}, {"r": 2.0**-6, "e": -1, "n": 2}, 0) for flag in (True, False)),
    (stochastic_rounding_equilibrium, {}, {
        "eta": 0.3, "lambda": 0.2, "f": 0.3, "n": 2, "s": 0.1, "a": 0.94, "U_2": 1.2, "r": 2.0, "ulp": 0.01, "e": -1,
    }, 1),
]  # fmt: skip


@pytest.mark.parametrize(("module", "variant", "values", "redundant"), WALKS)
def test_the_equations_of_a_proof_hold_together(module, variant, values, redundant, follow):
    """Sums over grid points and Fourier series of one number agree, and so do an equation and its solution."""
    functions = {"V": lambda s: s * sp.sqrt(2 / sp.pi) - s**2}
    _, tested = follow(module.derivation(**variant).steps, values, functions)
    assert tested >= redundant


def test_fourier_coefficients(plain):
    """Of x - RN(x), of its square and of f(1-f) on a cell, by quadrature; and the mean of a wave."""
    saw, square, ramp = (
        equations(derive(law))[name]
        for law, name in (("rounding_drift_gain", "b_n"), ("rounding_diffusion", "a_n"),
                          ("stochastic_rounding_equilibrium", "a_n"))
    )  # fmt: skip
    wave = equations(derive("rounding_drift_gain"))[r"E[\cos2\pi nx]"]
    half, all_ = (-0.5, 0.5), (-3, 3)
    for n in (1, 2, 5):
        turn = 2 * math.pi * n
        exact = (
            (saw, 2 * quad(lambda x, k: x * math.sin(k * x), *half, args=(turn,))[0]),
            (square, 2 * quad(lambda x, k: x**2 * math.cos(k * x), *half, args=(turn,))[0]),
            (ramp, 2 * quad(lambda x, k: x * (1 - x) * math.cos(k * x), 0, 1, args=(turn,))[0]),
        )
        for formula, integral in exact:
            assert number(formula, plain, n=n) == pytest.approx(integral, rel=1e-9)
        mean = quad(lambda x, k: math.cos(k * x) * norm.pdf(x, scale=0.2), *all_, args=(turn,), epsabs=1e-14)[0]
        assert number(wave, plain, n=n, s=0.2) == pytest.approx(mean, abs=1e-12)


def test_a_drift_moves_the_edges(plain):
    """dP_b/de against a difference quotient of the printed integral P_b: its error falls with the step squared."""
    proof = equations(derive("rounding_drift_gain"))
    values = {"b": 0.5, "s": 0.3}
    slope = number(proof["dP_b/de"], plain, **values)
    gaps = []
    for h in (2e-2, 1e-2):
        above, below = (number(proof["P_b"], plain, e=e, **values) for e in (h, -h))
        gaps.append((above - below) / (2 * h) - slope)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.01)


def test_small_steps_of_stochastic_rounding(plain):
    """The short form leaves out steps beyond the first cell: the tail of a normal at one ulp, and nothing else."""
    proof = equations(derive("stochastic_rounding_equilibrium"))
    short = proof[r"V_{s\ll1}"]
    for size in (0.05, 0.12, 0.3):
        gap = number(short, plain, s=size) - float(stochastic.rounding_variance(size))
        assert abs(gap) <= 2 * norm.sf(1 / size) + 1e-14
    assert abs(number(short, plain, s=0.3) - float(stochastic.rounding_variance(0.3))) > 1e-5  # there they count


def test_steins_step_and_the_errors(plain):
    """phi'/phi by differences; the printed error E_v is what the law uses; the binades' shares add up to one."""
    coupled, small = equations(derive("coupled_l2_survival")), equations(derive("residual_precision"))
    z, h = 0.7, 1e-5
    slope = (norm.pdf(z + h) - norm.pdf(z - h)) / (2 * h) / norm.pdf(z)
    assert number(coupled["phi'/phi"], plain, z=z) == pytest.approx(slope, rel=1e-8)
    cut = lambda e: e.replace(lambda x: isinstance(x, sp.Sum), lambda x: sp.Sum(x.function, (*x.limits[0][:2], 200)))
    for size in (0.2, 0.45, 1.3):
        assert number(cut(small["E_v"]), plain, s=size) == pytest.approx(float(nearest_error(size)) * size**2, rel=1e-9)
        assert number(cut(coupled["gain"]), plain, s=size) == pytest.approx(float(gain(size)), rel=1e-9)
    low, high = coupled_l2_survival.BINADES
    shares = [number(coupled["p_e"], plain, e=e) for e in range(low, high + 1)]
    assert sum(shares) == pytest.approx(1, abs=2.001 * norm.pdf(0) * 2.0**low)  # what lies below the lowest binade
    for e in (-9, 0, 3):
        assert number(coupled["ulp"], plain, e=e) == float(bf16.ulp(1.3 * 2.0**e))


def test_printed_rounding(plain):
    """RN(y) of the proof is bfloat16's rounding of random numbers (no ties among them)."""
    formula = equations(derive("bf16_scale_survival"))["RN(y)"]
    for y in np.random.default_rng(1).uniform(0.01, 900, 20).astype(np.float32):
        assert number(formula, plain, y=float(y), p=8) == float(bf16.round_bf16(y))


def test_threshold_of_scaling():
    """At the derived threshold 2^-9 no weight moves; one part in a thousand above it, the lowest does."""
    threshold = next(
        e.rhs for step in derive("bf16_scale_survival").steps for e in step.equations if str(e.lhs) == "delta_{min}"
    )
    least = float(threshold.subs(dict.fromkeys(threshold.free_symbols, 8)))
    assert theory.bf16_scale_survival(1 - least).fraction_changed == 0
    assert theory.bf16_scale_survival(1 - 1.001 * least).fraction_changed == 1 / 128
