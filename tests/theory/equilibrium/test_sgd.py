"""SGD's equilibrium: against torch.optim.SGD, against Yule-Walker solved by sympy, and in its limits."""

import math

import numpy as np
import pytest
import sympy as sp
import torch

from theory import sgd_equilibrium
from theory.equilibrium.sgd import sgd_gain
from theory.errors import InputError

PLAIN, HEAVY, DAMPED, NESTEROV = (0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.5, False), (0.9, 0.0, True)


@pytest.mark.parametrize("scale_invariant", [True, False])
@pytest.mark.parametrize(("momentum", "dampening", "nesterov"), [PLAIN, HEAVY, DAMPED, NESTEROV])
def test_torch_settles_there(simulate, momentum, dampening, nesterov, scale_invariant):
    lr, wd = 0.1, 0.1 if momentum else 0.3
    c2, g2 = (2.0, None) if scale_invariant else (None, 2.0)
    law = sgd_equilibrium(lr, wd, momentum, dampening, nesterov, c2=c2, g2=g2)
    skipped = 200 + int(10 * law.relaxation_steps)
    sample = simulate(
        lambda p: torch.optim.SGD(p, lr, momentum, dampening, wd, nesterov),
        [lr] * (skipped + 1_500),
        d=1024,
        rows=8,
        norm0=law.norm,
        scale_invariant=scale_invariant,
        second_moment=2.0,
    )
    bar = 0.004 if scale_invariant else 0.003  # theory.md 2.1
    for (measured, error), predicted in zip(
        (sample.norm(slice(skipped, None), 1_500), sample.angle(slice(skipped, None), 1_500)),
        (law.norm, law.angle),
        strict=True,
    ):
        assert error[0] < bar / 2  # else the sample says nothing
        assert abs(predicted / measured[0] - 1) < bar + 3 * error[0]


rho, mu, lam = sp.symbols("rho mu lambda", positive=True)


def yule_walker(phi1, phi2, b0, b1):
    """Variance and lag-one correlation of w' = phi1 w + phi2 w_ + b0 g + b1 g_, E g^2 = 1."""
    g0, g1, g2 = sp.symbols("g0 g1 g2")
    noise = b0 * b0 + b1 * (phi1 * b0 + b1)
    solved = sp.solve(
        [g0 - phi1 * g1 - phi2 * g2 - noise, g1 - phi1 * g0 - phi2 * g1 - b0 * b1, g2 - phi1 * g1 - phi2 * g0],
        [g0, g1, g2],
    )
    return sp.simplify(solved[g0]), sp.simplify(solved[g1] / solved[g0])


HEAVY_BALL = yule_walker(1 + mu - rho, -mu, -rho / lam, 0)  # with lr = rho/lam
ACCELERATED = yule_walker((1 + mu) * (1 - rho), -mu * (1 - rho), -rho / lam * (1 + mu), rho / lam * mu)


@pytest.mark.parametrize(("symbolic", "nesterov"), [(HEAVY_BALL, False), (ACCELERATED, True)])
@pytest.mark.parametrize(
    ("lr", "wd", "momentum"), [(0.1, 0.01, 0.9), (0.5, 0.6, 0.5), (1e-3, 1e-3, 0.99), (1, 0.7, 0.2)]
)
def test_gain_is_yule_walkers(symbolic, nesterov, lr, wd, momentum):
    values = {rho: sp.Rational(lr) * sp.Rational(wd), mu: sp.Rational(momentum), lam: sp.Rational(wd)}
    variance, correlation = (expression.subs(values) for expression in symbolic)
    gain, chord = sgd_gain(lr, wd, momentum, nesterov=nesterov)
    assert gain == pytest.approx(float(variance), rel=1e-9)
    assert chord == pytest.approx(float(1 - correlation), rel=1e-7)


def test_limits_by_symbols():
    variance, correlation = HEAVY_BALL
    assert sp.simplify(variance.subs(mu, 0) - (rho / lam) / (lam * (2 - rho))) == 0
    assert sp.simplify(1 - correlation - rho / (1 + mu)) == 0
    # to leading order in rho the norm forgets how the momentum is taken, the rotation does not
    for symbolic, factor in ((HEAVY_BALL, 1 / (1 + mu)), (ACCELERATED, 1 / (1 + mu) + 2 * mu * (1 - mu))):
        assert sp.simplify(sp.limit(symbolic[0] / rho, rho, 0) - 1 / (2 * lam**2 * (1 - mu))) == 0
        assert sp.simplify(sp.limit((1 - symbolic[1]) / rho, rho, 0) - factor) == 0


def test_dampening_is_a_smaller_rate():
    """Without the first step, dampening kappa only scales lr."""
    damped, plain = sgd_equilibrium(0.2, 0.05, 0.9, 0.75, c2=1.0), sgd_equilibrium(0.05, 0.05, 0.9, c2=1.0)
    assert (damped.norm, damped.angle) == pytest.approx((plain.norm, plain.angle), rel=1e-12)
    assert sgd_equilibrium(0.2, 0.05, 0.0, 0.75, c2=1.0) == sgd_equilibrium(0.2, 0.05, c2=1.0)  # as torch ignores it


def test_momentum_vanishes_continuously():
    for nesterov in (False, True):
        gaps = [
            abs(
                sgd_equilibrium(0.1, 0.1, m, nesterov=nesterov, c2=1.0).norm / sgd_equilibrium(0.1, 0.1, c2=1.0).norm
                - 1
            )
            for m in (1e-3, 1e-6)
        ]
        assert gaps[1] < 1e-5
        assert gaps[1] == pytest.approx(1e-3 * gaps[0], rel=0.01)


@pytest.mark.parametrize(("momentum", "dampening", "nesterov"), [PLAIN, HEAVY, NESTEROV])
def test_relative_update_and_relaxation(momentum, dampening, nesterov):
    """At stationary norm the law of cosines ties update, shrink and rotation; a small displacement dies as stated."""
    lr, wd = 0.1, 1e-4
    law = sgd_equilibrium(lr, wd, momentum, dampening, nesterov, c2=1.0)
    shrink = lr * wd / (1 - momentum)
    # to first order in the shrink; with momentum the slow root differs from it by momentum/(1-momentum) of its size
    assert law.angle == pytest.approx(law.relative_update, rel=shrink / (1 - momentum))
    assert law.relaxation_steps == pytest.approx(1 / (4 * shrink), rel=1e-9)
    assert law.effective_lr == pytest.approx(lr / law.norm**2)


def test_leading_order_of_the_norm():
    """R = sqrt(lr_e c2/2wd), lr_e = lr kappa/(1-mu): the gap is linear in lr*wd."""
    gaps = []
    for wd in (1e-3, 1e-4):
        law = sgd_equilibrium(0.1, wd, 0.9, 0.5, c2=3.0)
        gaps.append(law.norm**2 / math.sqrt(0.1 * 0.5 / 0.1 * 3.0 / (2 * wd)) - 1)
    assert abs(gaps[0]) < 1e-4
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.1, "weight_decay": 0.0, "c2": 1.0}, ("lr * weight_decay = 0.0", "positive")),
        ({"lr": 0.0, "weight_decay": 0.1, "c2": 1.0}, ("lr * weight_decay = 0.0", "positive")),
        ({"lr": 2.0, "weight_decay": 1.0, "c2": 1.0}, ("lr * weight_decay = 2.0", "below 2")),
        ({"lr": 4.0, "weight_decay": 1.0, "momentum": 0.9, "g2": 1.0}, ("lr * weight_decay = 4.0", "below 3.8")),
        ({"lr": 1.4, "weight_decay": 1.0, "momentum": 0.9, "nesterov": True, "c2": 1.0}, ("= 1.4", "below 1.357")),
        ({"lr": 0.1, "weight_decay": 0.1}, ("c2 and g2", "exactly one")),
        ({"lr": 0.1, "weight_decay": 0.1, "c2": 1.0, "g2": 1.0}, ("c2 and g2", "exactly one")),
        ({"lr": 0.1, "weight_decay": 0.1, "c2": -1.0}, ("c2 = -1.0", ">= 0")),
        ({"lr": 0.1, "weight_decay": 0.1, "momentum": 1.0, "c2": 1.0}, ("momentum = 1.0", "< 1")),
        ({"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "dampening": 1.0, "c2": 1.0}, ("dampening = 1.0", "< 1")),
        (
            {"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True, "c2": 1.0},
            ("dampening = 0.1", "0 with Nesterov"),
        ),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(InputError) as error:
        sgd_equilibrium(**arguments)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_nesterov_is_stable_up_to_its_own_limit():
    """The spectral radius of the two-step recursion passes one where the law says that it does."""
    for momentum in (0.3, 0.9):
        limit = 2 * (1 + momentum) / (1 + 2 * momentum)
        radius = [
            np.abs(np.roots([1, -(1 + momentum) * (1 - rho), momentum * (1 - rho)])).max()
            for rho in (limit * (1 - 1e-6), limit * (1 + 1e-6))
        ]
        assert radius[0] < 1 < radius[1]
        sgd_equilibrium(limit * (1 - 1e-6), 1.0, momentum, nesterov=True, c2=1.0)
        with pytest.raises(InputError):
            sgd_equilibrium(limit * (1 + 1e-6), 1.0, momentum, nesterov=True, c2=1.0)
