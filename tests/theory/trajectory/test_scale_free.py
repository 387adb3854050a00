"""Lion, Signum, normalised momentum, Muon and fixed-norm weights under any schedule, against the optimizers at work."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import theory
from empirics import scale_free as torch_optimizers
from theory.errors import InputError
from theory.optimizers import Hyperball, Lion, Muon, NormalizedMomentum, Signum
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Piecewise
from theory.trajectory.scale_free import scale_free_path, update_law, updates_in_weights

CASES = [
    (Lion(0.002, (0.9, 0.99), 2.0), torch_optimizers.Lion),
    (Signum(0.003, 0.9, 2.0), torch_optimizers.Signum),
    (NormalizedMomentum(0.02, 0.9, 0.2), torch_optimizers.NormalizedMomentum),
]


def _arguments(optimizer):
    names = ("lr", "betas", "momentum", "weight_decay")
    return {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}


@pytest.mark.parametrize(("optimizer", "kind"), CASES)
@pytest.mark.parametrize("schedule", [Cosine(warmup=50), Piecewise(knots=((0, 1.0), (200, 0.1)))])
def test_the_optimizer_follows_the_prediction(simulate, optimizer, kind, schedule):
    """Norm within 1 %, angle over 25 steps within 2 %: sampling is 0.3 % (16 rows of 512 coordinates)."""
    steps, d, rows = 400, 512, 16
    recipe = Recipe(optimizer, schedule, steps, (Group("w", (d,), scale_invariant="tensor", norm0=2.0),))

    def build(params):
        if kind is torch_optimizers.NormalizedMomentum:  # normalises a whole tensor: rows must be tensors
            return _RowWise(params, optimizer)
        return kind(params, **_arguments(optimizer))

    sample = simulate(
        build, recipe.lr(np.arange(steps)), d=d, rows=rows, norm0=2.0, scale_invariant=True, second_moment=1.0
    )
    values = predict(recipe).values(np.arange(steps))
    late = slice(0, steps)
    assert np.abs(values["norm"][late, 0] / sample.norm(late)[0] - 1).max() < 0.01
    predicted = np.sqrt(np.mean(values["angle"][100:375, 0].reshape(-1, 25) ** 2, axis=1))
    measured = sample.angle(slice(100, 375), bins=25)[0]
    assert np.abs(predicted / measured - 1).max() < 0.02


class _RowWise(torch.optim.Optimizer):
    """Normalised momentum applied to each row of one parameter, written out."""

    def __init__(self, params, optimizer):
        super().__init__(params, {"lr": optimizer.lr})
        self.decay, self.beta = optimizer.weight_decay, optimizer.momentum

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        (w,) = group["params"]
        m = self.state[w].setdefault("m", torch.zeros_like(w))
        m.mul_(self.beta).add_(w.grad, alpha=1 - self.beta)
        w.mul_(1 - group["lr"] * self.decay).sub_(group["lr"] * m / m.norm(dim=1, keepdim=True))


def test_own_normalised_momentum_is_the_written_out_one():
    torch.manual_seed(0)
    spec = NormalizedMomentum(0.1, 0.8, 0.3)
    one, two = (torch.nn.Parameter(torch.ones(1, 5).double()) for _ in range(2))
    ours = torch_optimizers.NormalizedMomentum([one], **_arguments(spec))
    written = _RowWise([two], spec)
    for _ in range(20):
        one.grad = torch.randn(1, 5).double()
        two.grad = one.grad.clone()
        ours.step()
        written.step()
    torch.testing.assert_close(one, two, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(48, 48), (96, 48)])
def test_muon_under_a_schedule(shape):
    """torch.optim.Muon itself; 3 % in norm: matrices of 48 rows are small for a law of large ones, 8 samples."""
    steps, spec = 300, Muon(0.02, 1.0)
    recipe = Recipe(spec, Cosine(warmup=30), steps, (Group("w", shape, norm0=3.0),))
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for _ in range(8)]
    for p in parameters:
        p.data *= 3.0 / p.data.norm()
    optimizer = torch.optim.Muon(parameters, lr=spec.lr, weight_decay=spec.weight_decay)
    norms = np.empty((steps, len(parameters)))
    for t, lr in enumerate(recipe.lr(np.arange(steps))):
        optimizer.param_groups[0]["lr"] = float(lr)
        for p in parameters:
            p.grad = torch.randn(shape)
        optimizer.step()
        norms[t] = [p.data.norm() for p in parameters]
    measured = np.sqrt(np.mean(norms**2, axis=1))
    assert np.abs(predict(recipe).values(np.arange(steps))["norm"][:, 0] / measured - 1)[60:].max() < 0.03


def test_fixed_norm(simulate):
    """Bound 2 %: 12 rows of 512 coordinates, binned over 25 steps."""
    spec, steps, d = Hyperball(0.05, 0.9), 300, 512
    recipe = Recipe(spec, Cosine(warmup=20, final=0.1), steps, (Group("w", (d,), norm0=2.0),))
    torch.manual_seed(0)
    rows = [torch.nn.Parameter(torch.randn(d).double()) for _ in range(12)]
    for p in rows:
        p.data *= 2.0 / p.data.norm()
    optimizer = torch_optimizers.Hyperball(rows, lr=spec.lr, momentum=spec.momentum)
    angles = np.empty((steps, len(rows)))
    for t, lr in enumerate(recipe.lr(np.arange(steps))):
        optimizer.param_groups[0]["lr"] = float(lr)
        old = [p.detach().clone() for p in rows]
        for p in rows:
            p.grad = torch.randn(d).double()
        optimizer.step()
        angles[t] = [2 * np.arcsin(float((p.detach() - o).norm()) / 4.0) for p, o in zip(rows, old, strict=True)]
    values = predict(recipe).values(np.arange(steps))
    assert values["norm"] == pytest.approx(2.0, rel=1e-12)
    assert all(float(p.detach().norm()) == pytest.approx(2.0, rel=1e-12) for p in rows)
    predicted = np.sqrt(np.mean(values["angle"][100:300, 0].reshape(-1, 25) ** 2, axis=1))
    measured = np.sqrt(np.mean(angles[100:300].reshape(8, -1) ** 2, axis=1))
    assert np.abs(predicted / measured - 1).max() < 0.02


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES] + [Muon(0.02, 0.5), Muon(0.02, 0.5, momentum=0.0)])
def test_constant_rates_lead_to_the_equilibrium(optimizer):
    shape, steps = (32, 64), 12_000
    laws = {
        Lion: lambda o: theory.lion_equilibrium(o.lr, o.weight_decay, o.betas, 2048),
        Signum: lambda o: theory.signum_equilibrium(o.lr, o.weight_decay, o.momentum, 2048),
        NormalizedMomentum: lambda o: theory.normalized_momentum_equilibrium(o.lr, o.weight_decay, o.momentum),
        Muon: lambda o: theory.muon_equilibrium(o.lr, o.weight_decay, shape, o.momentum),
    }
    settled = laws[type(optimizer)](optimizer)
    recipe = Recipe(optimizer, steps=steps, groups=(Group("w", shape, norm0=1.0),))
    values = predict(recipe).values([steps - 1])
    assert values["norm"][0, 0] == pytest.approx(settled.norm, rel=1e-6)  # Muon's transfer is tabulated
    assert values["angle"][0, 0] == pytest.approx(settled.angle, rel=1e-6)


@given(
    st.integers(1, 60),
    st.floats(0, 0.95),
    st.lists(st.floats(0, 0.6), min_size=2, max_size=40),
)
def test_memory_is_the_double_sum(steps, momentum, shrinks):
    rng = np.random.default_rng(steps)
    lr, shrink = rng.random(len(shrinks)), np.array(shrinks)
    covariance = momentum ** np.arange(7)
    brute = [
        sum(
            covariance[k] * lr[t - k] * np.prod(1 - shrink[t - k + 1 : t])
            for k in range(1, min(t, len(covariance) - 1) + 1)
        )
        for t in range(len(lr))
    ]
    np.testing.assert_allclose(updates_in_weights(lr, shrink, covariance), brute, rtol=1e-9, atol=1e-12)


def test_strong_decay_over_a_long_run_neither_overflows_nor_drifts():
    """exp of the whole run's decay would be e^20000; the last norm is that of a short run at the same rates."""
    lr = np.full(20_000, 0.5)
    law, rows = update_law(Signum(0.5, 0.9), (4,)), (np.ones(1), np.array([True]))
    long = scale_free_path(lr, np.full(20_000, 0.5), law, *rows)
    short = scale_free_path(lr[:400], np.full(400, 0.5), law, *rows)
    assert long.mean_square[-1] == pytest.approx(short.mean_square[-1], rel=1e-9)


def test_a_fixed_norm_of_zero_stays_zero():
    w = torch.nn.Parameter(torch.zeros(4))
    w.grad = torch.ones(4)
    torch_optimizers.Hyperball([w], lr=0.1).step()
    assert w.tolist() == [0.0] * 4
    row = predict(Recipe(Hyperball(0.1), steps=3, groups=(Group("b", (4,), norm0=0.0),))).at(2).loc["b"]
    assert (row["norm"], row["angle"], row["effective_lr"]) == (0.0, 0.0, 0.1)


def test_muon_refuses_vectors_and_predict_says_so():
    with pytest.raises(InputError, match="two dimensions"):
        update_law(Muon(0.1), (4,))
    prediction = predict(
        Recipe(Muon(0.02), steps=10, groups=(Group("m", (8, 8), norm0=1.0), Group("b", (8,), norm0=1.0)))
    )
    assert np.isnan(prediction.at(5).loc["b", "norm"])
    assert prediction.at(5).loc["m", "norm"] > 0
    assert any("matrices only" in warning for warning in prediction.warnings)
