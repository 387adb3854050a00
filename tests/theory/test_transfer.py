"""Transfer: what each rule promises to keep, recomputed from the answer."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import timescale, transfer
from theory.errors import InputError
from theory.transfer import RULES

HAVE = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 128, "steps": 10_000, "width": 512, "dataset_size": 100_000}
SIZE = st.floats(0.05, 20)


def sizes(batch, steps, data):
    """Changes of batch, steps and data as `want`."""
    return {"batch_size": 128 * batch, "steps": 10_000 * steps, "dataset_size": 100_000 * data}


def taus(lr, weight_decay, batch_size, steps, dataset_size, **_):
    tau = timescale(lr, weight_decay, batch_size, dataset_size, 1)
    return tau.epochs, tau.steps / steps


@given(batch=SIZE, steps=SIZE, data=SIZE, lr_rule=st.sampled_from(["sqrt", "linear", "fixed"]))
def test_each_rule_keeps_what_it_says(batch, steps, data, lr_rule):
    want = {**sizes(batch, steps, data), "lr_rule": lr_rule}
    before = taus(**HAVE)
    answer = {rule: transfer(HAVE, want, rule) for rule in RULES}
    after = {
        rule: taus(**{**want, "lr": advice.lr, "weight_decay": advice.weight_decay}) for rule, advice in answer.items()
    }
    assert after["constant_epochs"][0] == pytest.approx(before[0])
    assert after["constant_fraction"][1] == pytest.approx(before[1])
    # Bergsma et al.: tau/T proportional to tokens per parameter to the power -0.527
    assert after["tokens_per_parameter"][1] == pytest.approx(before[1] * (batch * steps) ** -0.527)
    for rule in ("constant_rotation", "sqrt_width"):  # the width stays
        assert answer[rule].lr * answer[rule].weight_decay == pytest.approx(1e-4)
    grown = {"sqrt": math.sqrt(batch), "linear": batch, "fixed": 1.0}[lr_rule]
    assert all(advice.lr == pytest.approx(1e-3 * grown) for advice in answer.values())


@given(k=st.floats(0.1, 50))
def test_width_under_mup(k):
    want = {"width": 512 * k}
    turned, gained = transfer(HAVE, want, "constant_rotation"), transfer(HAVE, want, "sqrt_width")
    assert (turned.lr, turned.weight_decay) == pytest.approx((1e-3 / k, 0.1 * k))
    assert (gained.lr, gained.weight_decay) == pytest.approx((1e-3 / k, 0.1 * math.sqrt(k)))


@given(first=SIZE, second=SIZE, rule=st.sampled_from(sorted(RULES)))
def test_two_changes_are_one(first, second, rule):
    once = transfer(HAVE, sizes(first * second, second, first), rule)
    middle = transfer(HAVE, sizes(first, 1, first), rule)
    have = {**HAVE, **sizes(first, 1, first), "lr": middle.lr, "weight_decay": middle.weight_decay}
    twice = transfer(have, sizes(first * second, second, first), rule)
    assert (twice.lr, twice.weight_decay) == pytest.approx((once.lr, once.weight_decay))


@pytest.mark.parametrize("rule", RULES)
def test_no_change_no_change(rule):
    advice = transfer(HAVE, {}, rule)
    assert (advice.lr, advice.weight_decay) == pytest.approx((1e-3, 0.1))
    assert advice.rule == rule
    assert "arXiv" in advice.source
    assert advice.why
    assert advice.limits


def test_fixed_epochs_make_the_two_memory_rules_agree():
    want = {"batch_size": 512, "steps": 2_500}
    one, other = (transfer(HAVE, want, rule) for rule in ("constant_epochs", "constant_fraction"))
    assert (one.lr, one.weight_decay) == pytest.approx((other.lr, other.weight_decay))


def test_no_decay_stays_none():
    assert transfer({**HAVE, "weight_decay": 0.0}, {"steps": 5}, "constant_fraction").weight_decay == 0.0


def test_a_given_rate_wins():
    for rule, lr in itertools.product(RULES, (1e-4, 1e-2)):
        assert transfer(HAVE, {"lr": lr, "batch_size": 256}, rule).lr == lr


@pytest.mark.parametrize(
    ("have", "want", "rule"),
    [
        (HAVE, {}, "average"),
        (HAVE, {"depth": 3}, "constant_epochs"),
        ({**HAVE, "momentum": 0.9}, {}, "constant_epochs"),
        (HAVE, {"weight_decay": 0.2}, "constant_epochs"),
        (HAVE, {"lr_rule": "cubic"}, "constant_epochs"),
        (HAVE, {"steps": 0}, "constant_fraction"),
        (HAVE, {"steps": 1}, "constant_fraction"),
        ({"lr": 1e-3, "weight_decay": 0.1}, {"steps": 100}, "constant_fraction"),
        ({"lr": 0.0, "weight_decay": 0.1}, {}, "constant_fraction"),
        (HAVE, {"width": 1024}, "tokens_per_parameter"),
    ],
)
def test_bad_input_gets_one_sentence(have, want, rule):
    if want == {"steps": 1}:  # lr*weight_decay would become one
        have = {**HAVE, "weight_decay": 100.0}
    with pytest.raises(InputError, match=r"is not allowed: .*must "):
        transfer(have, want, rule)


def test_tokens_per_parameter_of_another_width():
    advice = transfer(HAVE, {"width": 1024, "tokens_per_parameter_ratio": 2.0}, "tokens_per_parameter")
    assert advice.lr * advice.weight_decay == pytest.approx(1e-4 * 2**0.527)
