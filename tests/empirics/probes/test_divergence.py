import math

import numpy as np
import pytest
import torch
from torch import nn

from empirics.models import GPT2Config
from empirics.probes.divergence import Divergence, robust, snapshot
from theory.errors import InputError


def triggers(losses, **options) -> list:
    watch = Divergence(**options)
    return [found for step, loss in enumerate(losses) if (found := watch.observe(step, float(loss)))]


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def test_robust_scatter_of_a_gaussian():
    values = 3 + 0.5 * noise(100_000)
    center, sigma = robust(values)
    assert center == pytest.approx(3, abs=5 * 1.2533 * 0.5 / 100_000**0.5)  # standard error of a median
    assert sigma == pytest.approx(0.5, rel=5 * 1.17 / 100_000**0.5)  # MAD has relative standard error 1.17/sqrt(n)
    assert robust(np.full(5, 2.0)) == (2.0, 2e-3)
    assert robust(np.zeros(5))[1] > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_found_at_once(value):
    (found,) = triggers([value])
    assert (found.step, found.kind, found.quantity, found.score) == (0, "not finite", "loss", math.inf)
    assert Divergence().observe(3, 1.0, value).quantity == "grad_norm"
    assert str(Divergence().observe(3, 1.0, math.inf)) == "step 3: grad_norm is inf"


def test_the_threshold_is_where_it_says():
    """Losses 1 and 3 in turn: median 1, 2 or 3, MAD known, so the score is, too."""
    base = [1.0, 2.0, 3.0] * 20  # of the last 30: median 2, MAD 1
    for loss, expected in ((2 + 9.99 * 1.4826, 0), (2 + 10.01 * 1.4826, 1)):
        found = triggers([*base, loss], window=30)
        assert len(found) == expected
    assert found[0].score == pytest.approx(10.01)
    assert (found[0].step, found[0].kind) == (60, "spike")


def test_gaussian_losses_raise_no_alarm():
    for seed in range(20):
        assert triggers(3 + 0.3 * noise(5_000, seed)) == []


def test_a_steep_descent_raises_no_alarm():
    steps = np.arange(5_000)
    assert triggers(10 * (1 + steps) ** -0.3 + 0.05 * noise(5_000)) == []


def test_one_alarm_a_spike():
    losses = 3 + 0.05 * noise(2_000)
    losses[1_000:1_006] += [2, 5, 4, 1.5, 1, 0.7]
    losses[1_500] += 3
    assert [(t.step, t.kind) for t in triggers(losses)] == [(1_000, "spike"), (1_500, "spike")]


@pytest.mark.parametrize(("between", "alarms"), [(6.0, 1), (4.0, 2)])
def test_a_new_spike_needs_half_the_threshold_in_between(between, alarms):
    base = [1.0, 2.0, 3.0] * 40  # median 2, robust deviation 1.4826
    tail = [2 + 1.4826 * score for score in (12, between, 12)]
    assert [t.kind for t in triggers([*base, *tail]) if t.kind == "spike"] == ["spike"] * alarms


def test_a_drop_is_no_spike():
    losses = 3 + 0.05 * noise(400)
    losses[200:] -= 2
    assert triggers(losses) == []


def test_late_drift_is_found_before_it_is_a_spike():
    steps = np.arange(6_000)
    losses = 3 + 0.1 * noise(6_000) + np.maximum(steps - 3_000, 0) * 2e-4
    found = triggers(losses)
    assert [t.kind for t in found] == ["drift"]
    # windows of 100: 10 joint standard errors are 10*1.2533*0.1/10*sqrt(2) = 0.18, reached 890 steps into the drift;
    # the second such window ends within 300 steps more
    assert 3_800 <= found[0].step <= 4_200


def test_drift_needs_a_percent_and_two_windows():
    quiet = 1 + 1e-9 * noise(200)
    one = np.concatenate([quiet, np.full(100, 1.02), np.full(100, 1.0)])
    two = np.concatenate([quiet, np.linspace(1.0, 1.02, 200), np.full(200, 1.02)])
    small = np.concatenate([quiet, np.linspace(1.0, 1.009, 200), np.full(200, 1.009)])
    assert [t.kind for t in triggers(one) if t.kind == "drift"] == []
    assert [t.kind for t in triggers(two) if t.kind == "drift"] == ["drift"]
    assert triggers(small) == []


def test_memory_is_bounded():
    watch = Divergence(window=20)
    for step in range(5_000):
        watch.observe(step, 1.0 + step % 7)
    assert len(watch._recent) == 20
    assert len(watch._block) <= 20


def test_bad_settings():
    for options in ({"window": 7}, {"window": 10.5}, {"threshold": 0.5}, {"threshold": math.nan}):
        with pytest.raises(InputError):
            Divergence(**options)


def test_snapshot_by_hand():
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -4.0]]))
    model.weight.grad = torch.tensor([[math.nan, 2.0]])
    optimizer.step()
    table = snapshot(model, optimizer)["weight"]
    assert table["weight"] == {"norm": 6.0, "largest": 6.0, "not_finite": 1}
    assert table["grad"] == {"norm": 2.0, "largest": 2.0, "not_finite": 1}
    assert table["momentum_buffer"] == {"norm": 2.0, "largest": 2.0, "not_finite": 1}


def test_snapshot_takes_fused_projections_apart_and_leaves_everything_alone():
    model = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1).build(seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    model.loss(*2 * (torch.arange(8)[None],)).backward()
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    table = snapshot(model, optimizer)
    assert set(table["transformer.h.0.attn.c_attn.weight.q"]) == {"weight", "grad", "exp_avg", "exp_avg_sq"}
    q = model.transformer.h[0].attn.c_attn.weight[:16]
    assert table["transformer.h.0.attn.c_attn.weight.q"]["weight"]["norm"] == pytest.approx(q.norm().item())
    assert all(torch.equal(a, b) for a, b in zip(before[0], model.parameters(), strict=True))
    assert torch.equal(before[1], torch.get_rng_state())
    assert model.training
