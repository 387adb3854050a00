"""The walk on bfloat16: against a dense chain over both signs, numpy's matrix power, and torch's own rounding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from theory import bf16_scale_survival, bf16_walk
from theory.errors import InputError
from theory.precision.walk import _grid, _transitions

FLOOR = 1 / 8
"""Spacing below which the dense grid does not go; it costs FLOOR^2/24 = 6.5e-4 of rms, the law's own lr/32 a 16th."""


def _signed_grid(largest: float) -> np.ndarray:
    """Every bfloat16 number up to `largest`, both signs, no finer than FLOOR, in order."""
    values = torch.arange(2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double().numpy()
    values = values[(values > 0) & (values <= largest)]
    values = values[values % FLOOR == 0]
    return np.concatenate([-values[::-1], [0.0], values])


def _stays(grid: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Probability that a step of size 1 ends nearest to the weight itself, between its bfloat16 neighbours."""
    bits = torch.from_numpy(np.abs(grid)).bfloat16().view(torch.int16)
    up, down = ((bits + k).clamp(min=0).view(torch.bfloat16).double().numpy() for k in (1, -1))
    outer, inner = (np.abs(grid) + up) / 2, (np.abs(grid) + down) / 2
    mean = np.sign(grid) * centre
    return np.where(grid == 0, 0.0, norm.cdf(outer - mean) - norm.cdf(inner - mean))


def _dense(decay, steps, rms0, fused):
    """Steps of size 1 by the whole chain: cdf differences between midpoints, every step or numpy's matrix power."""
    grid = _signed_grid(6.5 * rms0 + 7 * min(math.sqrt(steps), math.sqrt(0.5 / decay) if decay else math.inf) + 10)
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    a = 1 - decay
    centre = a * grid if fused else torch.from_numpy(grid).bfloat16().mul(a).double().numpy()
    chain = np.diff(norm.cdf(edges[:, None] - centre), axis=0)  # columns: from
    moves = 1 - _stays(grid, centre)
    state, window = np.diff(norm.cdf(edges / rms0)), min(steps, 200)
    if steps > 3_000:
        state = np.linalg.matrix_power(chain, steps - window) @ state
    else:
        for _ in range(steps - window):
            state = chain @ state
    square = moving = 0.0
    for _ in range(window):
        moving += moves @ state / window
        state = chain @ state
        square += grid**2 @ state / window
    return math.sqrt(square), moving


CASES = [
    pytest.param(0.0, 40, 30.0, True, id="few-steps"),
    pytest.param(0.0, 700, 10.0, False, id="no-decay"),
    pytest.param(0.0015, 700, 20.0, False, id="decay-rounds-away"),
    pytest.param(0.0015, 20_000, 5.0, True, id="decay-survives-fused"),
    pytest.param(0.01, 20_000, 20.0, False, id="decay-above-the-threshold"),
    pytest.param(0.02, 300, 150.0, False, id="decay-outruns-noise"),
    pytest.param(0.05, 300, 150.0, True, id="decay-outruns-noise-fused"),
    pytest.param(0.5, 300, 20.0, False, id="strong-decay"),
]


@pytest.mark.parametrize(("decay", "steps", "rms0", "fused"), CASES)
def test_against_a_dense_chain_over_both_signs(decay, steps, rms0, fused):
    """Three times what the dense grid's floor costs; the law's is finer."""
    law = bf16_walk(1.0, decay, steps, rms0, fused)
    rms, moving = _dense(decay, steps, rms0, fused)
    assert law.rms == pytest.approx(rms, rel=2e-3)
    assert law.fraction_moving == pytest.approx(moving, abs=5e-4)


@pytest.mark.parametrize(
    ("lr", "decay", "rms0", "fused"),
    [(0.01, 0.0, 0.5, True), (0.01, 0.15, 1.0, False), (0.01, 0.15, 1.0, True), (0.003, 1.5, 1.0, False)],
)
def test_against_weights_that_torch_rounds(lr, decay, rms0, fused):
    """8,192 weights, 1,500 steps; bars 3.2 % and 2 %, theory.md 9.4, of which sampling takes up to 0.8 %."""
    torch.manual_seed(0)
    w = (rms0 * torch.randn(8_192)).bfloat16()
    square = moving = 0.0
    for t in range(1_500):
        step = lr * torch.randn(8_192)
        old = w.clone()
        w = (w.float() * (1 - lr * decay) - step).bfloat16() if fused else (w.mul(1 - lr * decay) - step).bfloat16()
        if t >= 1_300:
            moving += (w != old).double().mean().item() / 200
            square += w.double().square().mean().item() / 200
    law = bf16_walk(lr, decay, 1_500, rms0, fused)
    assert law.rms == pytest.approx(math.sqrt(square), rel=0.032)
    assert law.fraction_moving == pytest.approx(moving, rel=0.02)


@pytest.mark.parametrize("fused", [True, False])
def test_a_weight_stays_as_often_as_torch_leaves_it_powers_of_two_included(fused):
    """At 1, whose lower neighbour is half as far, and at 1.5; 1e6 steps of 0.3 ulp, within 4 standard errors."""
    torch.manual_seed(0)
    lr, a = 0.3 * 2.0**-7, 1 - 2.0**-10
    grid = _grid(lr, 1.0, 10)
    edges = np.append((grid[1:] + grid[:-1]) / 2, np.inf)
    still = _transitions(grid, edges, lr, a, fused)[1]
    for value in (1.0, 1.5):
        w = torch.full((1_000_000,), value).bfloat16()
        shrunk = w.float() * a if fused else w.mul(a).float()
        share = ((shrunk - lr * torch.randn(1_000_000)).bfloat16() == w).double().mean().item()
        error = math.sqrt(share * (1 - share)) / 1_000
        assert abs(still[grid == value].item() - share) < 4 * error


@settings(max_examples=25)
@given(
    ratio=st.floats(-1, 4),
    shrink=st.floats(-5, -0.05),
    lr=st.floats(-8, 2),
    steps=st.sampled_from([1, 2, 60, 260, 600]),
    fused=st.booleans(),
)
def test_any_admissible_input_gives_a_distribution(ratio, shrink, lr, steps, fused):
    """Whatever the balance of noise, decay and start: a rms that noise can reach, a share in [0, 1]."""
    size, lost = 10.0**lr, 10.0**shrink
    rms0 = size * 10.0**ratio
    law = bf16_walk(size, lost / size, steps, rms0, fused)
    assert 0 <= law.fraction_moving <= 1
    # rounding adds at most 0.31 of a step's variance and keeps weights where they are; never does it undo the noise
    assert law.rms <= math.sqrt(rms0**2 + 1.32 * steps * size**2) * (1 + 1e-3)
    assert law.rms > 0


@given(scale=st.integers(-20, 20), fused=st.booleans())
@settings(max_examples=10)
def test_powers_of_two_change_nothing(scale, fused):
    unit = 2.0**scale
    one, other = bf16_walk(0.01, 0.3, 250, 0.1, fused), bf16_walk(0.01 * unit, 0.3 / unit, 250, 0.1 * unit, fused)
    assert other.rms == pytest.approx(one.rms * unit, rel=1e-6)
    assert other.fraction_moving == pytest.approx(one.fraction_moving, rel=1e-6)


def test_decay_below_the_threshold_is_ignored_unless_fused():
    shrink = 2.0**-9
    assert bf16_scale_survival(1 - shrink).fraction_changed == 0
    kept, ignored = (bf16_walk(0.01, d, 3_000, 0.1, fused=False) for d in (shrink / 0.01, 0.0))
    assert kept.rms == ignored.rms
    fused = bf16_walk(0.01, shrink / 0.01, 3_000, 0.1, fused=True)
    exact = math.sqrt(0.01**2 / (1 - (1 - shrink) ** 2))  # AR(1) without rounding; 3,000 steps are 12 memories
    assert fused.rms == pytest.approx(exact, rel=0.01)
    assert kept.rms > 2 * exact


def test_far_from_the_grid_the_walk_is_the_unrounded_one():
    """lr above every spacing: rms^2 = a^2t rms0^2 + lr^2 (1-a^2t)/(1-a^2), averaged over the last 200 steps."""
    a, t = 0.9, np.arange(51, 251)
    squares = 0.5**2 * a ** (2 * t) + (1 - a ** (2 * t)) / (1 - a**2)
    law = bf16_walk(1.0, 0.1, 250, 0.5, fused=True)
    assert law.rms == pytest.approx(math.sqrt(squares.mean()), rel=1e-3)


def test_extremes():
    assert bf16_walk(0.0, 0.1, 100, 0.3, fused=True) == bf16_walk(0.1, 0.1, 0, 0.3, fused=False)
    one = bf16_walk(0.1, 0.0, 1, 0.0, fused=True)
    assert one.rms == pytest.approx(0.1, rel=1e-4)
    assert one.fraction_moving == 1
    frozen = bf16_walk(1e-30, 0.0, 50, 1.0, fused=False)
    assert frozen.rms == pytest.approx(1.0, rel=1e-4)
    assert frozen.fraction_moving < 1e-6


@pytest.mark.parametrize(
    "call",
    [
        lambda: bf16_walk(-0.1, 0.0, 10, 0.1, fused=True),
        lambda: bf16_walk(0.1, 10.0, 10, 0.1, fused=True),
        lambda: bf16_walk(0.1, 0.0, -1, 0.1, fused=True),
        lambda: bf16_walk(0.1, 0.0, 10, math.nan, fused=True),
        lambda: bf16_walk(0.1, math.inf, 10, 0.1, fused=True),
        lambda: bf16_walk(1e31, 0.0, 10, 0.1, fused=True),
        lambda: bf16_walk(1e-31, 0.0, 10, 0.1, fused=True),
    ],
)
def test_bad_input_gets_one_sentence(call):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        call()
