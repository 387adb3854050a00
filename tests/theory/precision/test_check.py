"""What precision_check finds is what torch's own bfloat16 kernels do."""

import pytest
import torch

from theory.errors import InputError
from theory.optimizers import AdamW
from theory.precision.check import precision_check
from theory.recipe import Group, Recipe
from theory.schedules import Linear

MATRIX = (Group("w", (64, 64), norm0=1.3),)


def _kinds(lr, decay, beta2=0.95, **kwargs):
    recipe = Recipe(AdamW(lr, (0.9, beta2), weight_decay=decay), Linear(), 200, MATRIX)
    return {finding.what: finding for finding in precision_check(recipe, **kwargs)}


def test_decay_below_the_threshold_is_found_and_really_does_nothing():
    finding = _kinds(6e-4, 0.1)["decay_rounds_away"]
    assert (finding.fraction_affected, finding.first_step, finding.group) == (1.0, 0, "w")
    torch.manual_seed(0)
    start, gradient = torch.randn(64, 64).bfloat16(), torch.randn(64, 64).bfloat16()
    ends = []
    for decay in (0.1, 0.0):
        w = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.AdamW([w], lr=6e-4, betas=(0.9, 0.95), weight_decay=decay, foreach=False)
        for _ in range(5):
            w.grad = gradient
            optimizer.step()
        ends.append(w.detach())
    assert torch.equal(*ends)


def test_a_schedule_to_zero_loses_its_decay_where_it_crosses_the_threshold():
    finding = _kinds(0.05, 0.1)["decay_rounds_away"]
    assert 0.05 * 0.1 * (1 - finding.first_step / 200) <= 2**-9 < 0.05 * 0.1 * (1 - (finding.first_step - 1) / 200)


def test_second_moment():
    assert _kinds(6e-4, 0.1, beta2=0.999)["second_moment_frozen"].first_step == 0
    assert "second_moment_frozen" not in _kinds(6e-4, 0.1, beta2=0.99)
    v = torch.full((128,), 1.0).mul(1 + torch.arange(128) / 128).bfloat16()
    assert torch.equal(v.clone().mul_(0.999), v)
    assert not torch.equal(v.clone().mul_(0.99), v)


def test_small_steps_stall_and_large_ones_do_not():
    assert _kinds(1e-7, 0.1)["steps_stall"].fraction_affected > 0.9
    assert _kinds(1e-2, 0.1).get("steps_stall") is None or _kinds(1e-2, 0.1)["steps_stall"].first_step > 100


@pytest.mark.parametrize("kwargs", [{"weight_dtype": "float32"}, {"rounding": "stochastic"}])
def test_nothing_to_report(kwargs):
    assert _kinds(6e-4, 0.1, beta2=0.999, **kwargs) == {}


def test_bad_input():
    with pytest.raises(InputError, match="weight_dtype"):
        _kinds(1e-3, 0.1, weight_dtype="int8")
    with pytest.raises(InputError, match="rounding"):
        _kinds(1e-3, 0.1, rounding="up")
