"""Muon: against SVDs of random matrices, torch.optim.Muon, the Marchenko-Pastur integral and explicit lag sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from theory import decoupled_equilibrium, matrix_arcsine, muon_equilibrium
from theory.equilibrium.muon import mode_energies, newton_schulz
from theory.errors import InputError


def pairs(shape, rho, samples, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        g, other = rng.standard_normal((2, *shape))
        yield g, rho * g + math.sqrt(1 - rho**2) * other


def on_singular_values(g, phi):
    u, x, v = np.linalg.svd(g / math.sqrt(max(g.shape)), full_matrices=False)
    return (u * phi(x)) @ v


@pytest.mark.parametrize(("shape", "rho"), [((128, 128), 0.9), ((64, 192), 0.7), ((192, 64), -0.95)])
def test_polar_factors_of_random_matrices(shape, rho):
    seen = [
        np.sum(on_singular_values(g, np.ones_like) * on_singular_values(h, np.ones_like)) / min(shape)
        for g, h in pairs(shape, rho, 12)
    ]
    error = np.std(seen, ddof=1) / math.sqrt(len(seen)) / abs(np.mean(seen))
    assert error < 0.005
    assert abs(matrix_arcsine(shape, rho).correlation / np.mean(seen) - 1) < 0.01 + 3 * error  # bar 1 %, theory.md 2.9


@pytest.mark.parametrize("ns_steps", [1, 5])
def test_newton_schulz_of_random_matrices(ns_steps):
    shape, rho, p = (64, 160), 0.8, 64
    phi = lambda x: newton_schulz(x / math.sqrt(p), ns_steps)
    seen = [np.sum(on_singular_values(g, phi) * on_singular_values(h, phi)) / p for g, h in pairs(shape, rho, 20)]
    error = np.std(seen, ddof=1) / math.sqrt(len(seen)) / np.mean(seen)
    energies = mode_energies(*shape, ns_steps)
    law = energies @ rho ** (2 * np.arange(len(energies)) + 1.0)
    assert abs(law / np.mean(seen) - 1) < 0.01 + 3 * error


@pytest.mark.parametrize(("shape", "ns_steps"), [((40, 90), 5), ((64, 64), 5), ((32, 48), 2), ((30, 50), None)])
def test_energies_sum_to_the_marchenko_pastur_mean(shape, ns_steps):
    p, c = min(shape), min(shape) / max(shape)
    low, high = (1 - math.sqrt(c)) ** 2, (1 + math.sqrt(c)) ** 2

    def integrand(x):
        phi = 1.0 if ns_steps is None else float(newton_schulz(np.asarray(x / math.sqrt(p)), ns_steps))
        density = math.sqrt(max((high - x * x) * (x * x - low), 0.0)) / (2 * math.pi * c * x * x)
        return phi**2 * density * 2 * x

    mean = quad(integrand, math.sqrt(low), math.sqrt(high), limit=2_000, epsabs=1e-9, epsrel=1e-9)[0]
    assert mode_energies(*shape, ns_steps).sum() == pytest.approx(mean, rel=1e-6)


def test_square_polar_factor_has_known_modes():
    j = np.arange(50)
    amplitude = (1 / (j + 0.5) + 1 / (j + 1.5)) / math.pi  # (2/pi) int sin(t/2) sin((j+1)t) dt; j = 0: 8/(3 pi)
    assert amplitude[0] == pytest.approx(8 / (3 * math.pi))
    assert mode_energies(70, 70, None)[:50] == pytest.approx(amplitude**2, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "momentum", "nesterov", "adjust"),
    [
        ((32, 64), 0.8, True, None),
        ((64, 32), 0.9, False, "original"),
        ((40, 40), 0.0, True, "match_rms_adamw"),
    ],
)
def test_torch_settles_there(shape, momentum, nesterov, adjust):
    lr, wd, copies, skipped, steps = 0.02, 2.5, 6, 300, 700
    kind = {"momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": adjust}
    law = muon_equilibrium(lr, wd, shape, **kind)
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape) * law.rms) for _ in range(copies)]
    optimizer = torch.optim.Muon(weights, lr=lr, weight_decay=wd, **kind)
    squares, chords = np.zeros(copies), np.zeros(copies)
    for t in range(skipped + steps):
        old = [w.detach().clone() for w in weights]
        for w in weights:
            w.grad = torch.randn(shape)
        optimizer.step()
        if t >= skipped:
            for i, (w, before) in enumerate(zip(weights, old, strict=True)):
                r, s = before.norm().item(), w.detach().norm().item()
                squares[i] += s**2 / steps
                chords[i] += ((w.detach() - before).norm().item() ** 2 - (s - r) ** 2) / (r * s) / steps
    for values, predicted, bar in ((squares, law.norm, 0.008), (chords, 2 * math.sin(law.angle / 2), 0.006)):
        error = values.std(ddof=1) / math.sqrt(copies) / (2 * values.mean())
        assert error < bar / 2
        assert abs(predicted / math.sqrt(values.mean()) - 1) < bar + 3 * error  # bars of theory.md 2.9


@pytest.mark.parametrize("nesterov", [True, False])
def test_lags_summed_one_by_one(nesterov):
    lr, wd, shape, mu = 0.02, 0.5, (24, 36), 0.9
    response = (1 - mu) * mu ** np.arange(1_200)
    if nesterov:
        response = mu * response
        response[0] += 1 - mu
    covariance = np.correlate(np.pad(response, (0, 600)), response, mode="valid")
    rho = np.minimum(covariance / covariance[0], 1.0)[:400]
    energies = mode_energies(*shape, 5)
    c = 24 * (rho[:, None] ** (2 * np.arange(len(energies)) + 1.0)) @ energies
    brute = decoupled_equilibrium(lr, wd, c, lr_update=lr)  # 24 x 36 is adjusted by one
    law = muon_equilibrium(lr, wd, shape, mu, nesterov)
    assert (law.norm, law.angle) == pytest.approx((brute.norm, brute.angle), rel=1e-9)


@given(n=st.integers(1, 400), m=st.integers(1, 400), rho=st.floats(-1, 1))
def test_correlation_is_odd_bounded_and_transposable(n, m, rho):
    value = matrix_arcsine((n, m), rho).correlation
    assert abs(value) <= abs(rho) + 1e-12  # orthogonalising can only lose correlation
    assert matrix_arcsine((m, n), -rho).correlation == pytest.approx(-value, abs=1e-12)
    assert matrix_arcsine((n, m), 1.0).correlation == pytest.approx(1.0)


def test_flat_matrices_keep_their_correlation():
    assert matrix_arcsine((1, 10**6), 0.5).correlation == pytest.approx(0.5, rel=1e-5)  # c -> 0


@given(lr=st.floats(1e-4, 0.1), wd=st.floats(1e-3, 5.0), scale=st.floats(0.1, 10.0), mu=st.floats(0, 0.99))
def test_scaling_and_monotonicity(lr, wd, scale, mu):
    law = muon_equilibrium(lr, wd, (64, 32), mu)
    moved = muon_equilibrium(scale * lr, wd / scale, (64, 32), mu)
    assert (moved.norm, moved.angle) == pytest.approx((scale * law.norm, law.angle), rel=1e-6)
    assert (
        muon_equilibrium(lr, 1.2 * wd, (64, 32), mu).norm < law.norm < muon_equilibrium(1.2 * lr, wd, (64, 32), mu).norm
    )


@pytest.mark.parametrize(
    "wrong",
    [{"shape": (8,)}, {"shape": (0, 8)}, {"adjust_lr_fn": "none"}, {"ns_steps": 0}, {"momentum": 1.0}, {"lr": 0.0}],
)
def test_bad_input_gets_one_sentence(wrong):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        muon_equilibrium(**{"lr": 0.02, "weight_decay": 0.1, "shape": (8, 8), **wrong})
