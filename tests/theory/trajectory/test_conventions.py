"""Decay conventions: against scipy's ODE solver, torch.optim.AdamW with per-step decay, and the fixed point."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from theory import adamw_equilibrium, closed_form_norm, decay_convention_norm
from theory.errors import InputError

RATES = {"constant": lambda s: 1.0, "linear": lambda s: 1 - s, "cosine": lambda s: 0.5 * (1 + math.cos(math.pi * s))}
DECAYS = {"adamw": lambda x: x, "corrected": lambda x: x * x, "independent": lambda x: 1.0}


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("convention", DECAYS)
@pytest.mark.parametrize(("kappa", "r0"), [(0.4, 0.2), (6.0, 1.0), (40.0, 2.0)])
def test_it_solves_the_equation(convention, kind, kappa, r0):
    x, decay = RATES[kind], DECAYS[convention]
    slope = lambda s, r: 2 * kappa * (x(s) ** 2 - decay(x(s)) * r)
    solved = solve_ivp(slope, (0, 1), [r0], method="Radau", rtol=1e-10, atol=1e-13, t_eval=[0.5, 1.0]).y[0]
    law = decay_convention_norm(convention, kind, kappa, r0=r0)
    assert [law.r_half, law.r_end] == pytest.approx(solved, rel=1e-6)


@pytest.mark.parametrize(("convention", "bars"), [("corrected", (0.02, 0.02)), ("independent", (0.04, 0.10))])
def test_torch_follows(convention, bars):
    peak, wd, steps, d, rows = 0.02, 0.25, 1_200, 4_000, 2
    start = adamw_equilibrium(peak, wd, (0.9, 0.99), d)
    x = 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(rows, d) * start.rms)
    optimizer = torch.optim.AdamW([w], lr=peak, betas=(0.9, 0.99), eps=1e-30)
    norms = []
    for t in range(-100, steps):  # the buffers fill at the peak rate first
        now = x[max(t, 0)]
        group = optimizer.param_groups[0]
        group["lr"], group["weight_decay"] = peak * now, wd * (now if convention == "corrected" else 1 / now)
        w.grad = torch.randn(rows, d)
        optimizer.step()
        norms.append(w.detach().square().sum().item())
    law = decay_convention_norm(convention, "cosine", peak * wd * steps)
    reference = start.norm**2 * rows
    sampling = 3 * math.sqrt(2 / (rows * d))  # of a sum of rows*d squared weights
    assert norms[100 + steps // 2] / reference == pytest.approx(law.r_half, rel=bars[0] + sampling)
    assert norms[-1] / reference == pytest.approx(law.r_end, rel=bars[1] + sampling)


@given(kappa=st.floats(0, 1e4), kind=st.sampled_from(sorted(RATES)))
def test_corrected_decay_keeps_the_norm(kappa, kind):
    law = decay_convention_norm("corrected", kind, kappa)
    assert law.r_half == law.r_end == 1.0


@given(kappa=st.floats(0.001, 1e3), kind=st.sampled_from(["linear", "cosine"]), r0=st.floats(0, 3))
def test_order_of_the_conventions(kappa, kind, r0):
    corrected, adamw, independent = (
        decay_convention_norm(c, kind, kappa, r0=r0).r_end for c in ("corrected", "adamw", "independent")
    )
    assert independent <= adamw <= corrected * (1 + 1e-9) + 1e-12  # the more decay late in the run, the smaller


@pytest.mark.parametrize(("kind", "half"), [("linear", {"x": 0.5}), ("cosine", {"s": 0.5})])
def test_adamw_is_the_closed_form(kind, half):
    law = decay_convention_norm("adamw", kind, 5.0, r0=0.4)
    assert law.r_half == pytest.approx(closed_form_norm(kind, 5.0, 0.4, **half).r, rel=1e-10)
    assert law.r_end == pytest.approx(closed_form_norm(kind, 5.0, 0.4).r, rel=1e-10)


def test_independent_decay_is_quasi_static_for_large_kappa():
    assert decay_convention_norm("independent", "linear", 1e6).r_half == pytest.approx(0.25, rel=1e-5)
    assert decay_convention_norm("independent", "linear", 1e6).r_end == pytest.approx(0.5e-12, rel=1e-6)  # 1/2 kappa^2


@pytest.mark.parametrize("wrong", [("coupled", "linear", 1.0), ("adamw", "wsd", 1.0), ("adamw", "linear", -1.0)])
def test_bad_input_gets_one_sentence(wrong):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        decay_convention_norm(*wrong)
