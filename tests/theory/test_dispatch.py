"""`equilibrium` and `trajectory` agree with the laws they stand for, with each other, and refuse clearly."""

from dataclasses import replace

import numpy as np
import pytest

import decaylab as dl
import theory
from theory.errors import InputError
from theory.probe import Probe, TensorProbe

MATRIX = dl.Group("w", (64, 48), scale_invariant="tensor", norm0=3.0)
OPTIMIZERS = [
    dl.AdamW(1e-3, weight_decay=0.5),
    dl.Lion(1e-3, weight_decay=0.5),
    dl.Signum(1e-3, weight_decay=0.5),
    dl.NormalizedMomentum(1e-2, weight_decay=0.05),
    dl.Muon(1e-2, weight_decay=0.05),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("decay", ["decoupled", "independent", "corrected"])
def test_a_long_trajectory_ends_in_the_equilibrium(optimizer, decay):
    """After ten relaxation times e^-10 of the start is left; the laws' bars are 1 % (norm) and 1 % (mean angle)."""
    value = optimizer.weight_decay * (optimizer.lr if decay == "independent" else 1.0)
    optimizer = replace(optimizer, decay=decay, weight_decay=value)
    settled = dl.equilibrium(optimizer, MATRIX)
    steps = int(10 * settled.relaxation_steps)
    path = dl.trajectory(dl.Recipe(optimizer, steps=steps), MATRIX)
    assert path.norm[-1] == pytest.approx(settled.norm, rel=0.01)
    assert path.angle[-1] == pytest.approx(settled.angle, rel=0.01)
    assert path.effective_lr is not None
    assert path.effective_lr[-1] == pytest.approx(settled.effective_lr, rel=0.01)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum):
    optimizer = dl.SGD(0.1, momentum=momentum, weight_decay=0.01)
    settled = dl.equilibrium(optimizer, MATRIX, c2=2.0)
    assert settled == replace(
        theory.sgd_equilibrium(0.1, 0.01, momentum, c2=2.0), rms=settled.rms, effective_lr=settled.effective_lr
    )
    probe = Probe(0, {"w": TensorProbe(c2=2.0)})
    path = dl.trajectory(dl.Recipe(optimizer, steps=20_000), MATRIX, probe)
    assert path.norm[-1] == pytest.approx(settled.norm, rel=0.01)
    free = dl.equilibrium(optimizer, replace(MATRIX, scale_invariant=None), g2=2.0)
    assert free.norm == theory.sgd_equilibrium(0.1, 0.01, momentum, g2=2.0).norm


def test_adam_with_coupled_decay():
    optimizer = dl.Adam(1e-2, weight_decay=1e-3)
    settled = dl.equilibrium(optimizer, MATRIX, c2=4.0)
    path = dl.trajectory(
        dl.Recipe(optimizer, steps=30_000), replace(MATRIX, norm0=settled.norm), Probe(0, {"w": TensorProbe(c2=4.0)})
    )
    assert settled.law == path.law == "adam_l2_equilibrium"
    assert path.norm[-1] == pytest.approx(settled.norm, rel=0.03)  # both laws' bars


def test_the_groups_own_rate_and_decay_apply():
    optimizer = dl.AdamW(1e-3, weight_decay=0.1)
    own = dl.equilibrium(optimizer, replace(MATRIX, lr_factor=0.5, weight_decay=0.4))
    assert own == dl.equilibrium(dl.AdamW(5e-4, weight_decay=0.4), MATRIX)


def test_fixed_norm():
    settled = dl.equilibrium(dl.Hyperball(0.01), MATRIX)
    assert settled.norm == 3.0
    assert settled.angle == theory.hyperball_angle(0.01, 0.9).angle


def test_cautious_decay():
    """Signum has a law of its own; elsewhere half of the decay acts. The simulated AdamW is the oracle of that."""
    signum = dl.equilibrium(dl.Signum(1e-3, weight_decay=0.1, decay=dl.Decay.CAUTIOUS), MATRIX)
    assert signum.law == "cautious_equilibrium"
    lr, decay, betas = 3e-3, 1.0, (0.0, 0.95)
    settled = dl.equilibrium(dl.AdamW(lr, betas, weight_decay=decay, decay=dl.Decay.CAUTIOUS), MATRIX)
    generator = np.random.default_rng(0)
    w, v, squares = np.full(MATRIX.size, settled.rms), np.zeros(MATRIX.size), []
    for step in range(1, 3001):
        g = generator.standard_normal(MATRIX.size)
        v = betas[1] * v + (1 - betas[1]) * g**2
        u = g / np.sqrt(v / (1 - betas[1] ** step))
        w = w - lr * (u + decay * w * (u * w > 0))
        squares.append(np.mean(w**2))
    # simultaneous decay feels the correlation of u and w to O(sqrt(lr*wd)) = 5 %; sampling 1 %
    assert np.sqrt(np.mean(squares[1000:])) == pytest.approx(settled.rms, rel=0.06)


def test_a_trajectory_by_name_and_from_a_probe():
    recipe = dl.Recipe(dl.AdamW(1e-3), dl.Cosine(), 100, (MATRIX, dl.Group("b", (8,), norm0=1.0)))
    whole = dl.predict(recipe).values(np.arange(100))
    np.testing.assert_allclose(dl.trajectory(recipe, "b").norm, whole["norm"][:, 1], rtol=1e-14)
    later = dl.trajectory(recipe, "w", Probe(40, {"w": TensorProbe(norm=5.0)}))
    assert later.step[0] == 40
    assert later.norm[0] == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: dl.equilibrium(dl.AdamW(1e-3, weight_decay=0.0), MATRIX), "'w' has no equilibrium: lr and"),
        (lambda: dl.equilibrium(dl.AdamW(0.0), MATRIX), "has no equilibrium"),
        (lambda: dl.equilibrium(dl.AdamW(1e-3), replace(MATRIX, decayed=False)), "has no equilibrium"),
        (lambda: dl.equilibrium(dl.SGD(0.1, weight_decay=0.1), MATRIX), "c2 = None is not allowed: it must be given"),
        (lambda: dl.equilibrium(dl.Muon(0.1), dl.Group("b", (3,))), r"group.shape = \(3,\) is not allowed"),
        (lambda: dl.equilibrium(dl.Hyperball(0.1), dl.Group("b", (3,))), "group.norm0 = None is not allowed"),
        (lambda: dl.equilibrium("adamw", MATRIX), "optimizer = 'adamw' is not allowed"),  # pyright: ignore
        (lambda: dl.trajectory(dl.Recipe(dl.AdamW(0.1)), "w"), "group = 'w' is not allowed: it must be one of none"),
    ],
)
def test_refusals(ask, why):
    with pytest.raises(InputError, match=why):
        ask()
