"""Conversion of decay: against torch.optim's own steps with no gradient, and round trips."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import convert_decay
from theory.errors import InputError
from theory.optimizers import Decay

KINDS = [kind for kind in Decay if kind is not Decay.NONE]
MATRIX = torch.arange(1.0, 7.0, dtype=torch.float64)


def _without_gradient(build, steps=1):
    """Weights after torch steps whose gradient is zero, over those before."""
    w = torch.nn.Parameter(MATRIX.clone())
    optimizer = build([w])
    for _ in range(steps):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    return (w.detach() / MATRIX).numpy()


def _literal(kind, value, lr, lr_max):
    """One step with no gradient in each convention, by torch where it has it and as its paper writes it elsewhere."""
    if kind is Decay.COUPLED:
        return _without_gradient(lambda p: torch.optim.SGD(p, lr=lr, weight_decay=value))
    if kind in (Decay.DECOUPLED, Decay.SCHEDULED):
        return _without_gradient(lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=value))
    if kind is Decay.INDEPENDENT:
        return np.full(6, 1 - value)
    return np.full(6, 1 - lr * lr * value / lr_max)


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.permutations([k for k in KINDS if k is not Decay.CAUTIOUS], 2)), ids=str
)
def test_a_step_without_gradient_is_the_same_in_both(source, target):
    value, lr, lr_max = 0.02, 0.3, 0.4
    converted = convert_decay(value, source, target, lr, lr_max)
    before, after = _literal(source, value, lr, lr_max), _literal(target, converted.value, lr, lr_max)
    np.testing.assert_allclose(before, after, rtol=1e-12)
    np.testing.assert_allclose(1 - before, converted.shrink, rtol=1e-9)  # one minus nearly one
    assert converted.exact


def test_coupled_and_decoupled_are_one_update_of_plain_sgd():
    """With gradients too: torch's coupled step is a decoupled one to the last bits."""
    torch.manual_seed(0)
    coupled = convert_decay(0.3, "decoupled", "coupled", lr=0.1, lr_max=0.1)
    w = torch.nn.Parameter(MATRIX.clone())
    optimizer, own = torch.optim.SGD([w], lr=0.1, weight_decay=coupled.value), MATRIX.clone()
    for _ in range(50):
        gradient = torch.randn(6, dtype=torch.float64)
        w.grad = gradient
        optimizer.step()
        own = (1 - 0.1 * 0.3) * own - 0.1 * gradient
    torch.testing.assert_close(w.detach(), own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("momentum", "dampening"), [(0.9, 0.0), (0.5, 0.5), (0.8, 0.3)])
def test_with_momentum_coupled_decay_shrinks_as_much_in_the_long_run(momentum, dampening):
    """torch.optim.SGD once its buffer has settled; the shrink is of first order in lr*wd, its error halves with it."""

    def off(lr):
        converted = convert_decay(0.1, "coupled", "decoupled", lr, lr, momentum=momentum, dampening=dampening)
        assert not converted.exact
        build = lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, dampening=dampening, weight_decay=0.1)
        late, early = _without_gradient(build, steps=400), _without_gradient(build, steps=300)
        measured = -math.expm1(math.log(late[0] / early[0]) / 100)
        assert converted.shrink == pytest.approx(lr * converted.value, rel=1e-14)
        return converted.shrink / measured - 1

    assert abs(off(1e-3)) < 1e-2
    assert off(1e-3) / off(5e-4) == pytest.approx(2.0, rel=0.02)


def test_cautious_decay_shrinks_half_of_the_time():
    """Masked to coordinates where update and weight agree in sign: mean shrink of 1e6, within 4 standard errors."""
    rng = np.random.default_rng(0)
    w, u = rng.standard_normal((2, 1_000_000))
    law = convert_decay(0.5, "cautious", "decoupled", lr=0.2, lr_max=0.2)
    shares = 0.2 * 0.5 * (w * u > 0)
    assert abs(law.shrink - shares.mean()) < 4 * shares.std() / 1_000
    assert law.value == 0.25
    assert not law.exact


RATES = st.tuples(st.floats(1e-6, 10), st.floats(1.0, 1e3)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@given(
    value=st.floats(1e-12, 1e3),
    rates=RATES,
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 3),
    momentum=st.floats(0, 0.99),
    dampening=st.floats(0, 0.99),
)
def test_round_trips_and_detours_return_the_same(value, rates, kinds, momentum, dampening):
    one, two, three = kinds
    at = {"lr": rates[0], "lr_max": rates[1], "momentum": momentum, "dampening": dampening}
    there = convert_decay(value, one, two, **at)
    back = convert_decay(there.value, two, one, **at)
    assert back.value == pytest.approx(value, rel=1e-12)
    assert back.shrink == pytest.approx(there.shrink, rel=1e-12)
    assert back.exact == there.exact
    assert convert_decay(there.value, two, three, **at).value == pytest.approx(
        convert_decay(value, one, three, **at).value, rel=1e-12
    )
    assert convert_decay(2 * value, one, two, **at).value == pytest.approx(2 * there.value, rel=1e-12)


@given(value=st.floats(0, 1e3), kind=st.sampled_from(KINDS), rates=RATES)
def test_no_conversion_changes_nothing(value, kind, rates):
    same = convert_decay(value, kind, kind.value, *rates, momentum=0.9)
    assert (same.value, same.exact) == (value, True)


def test_at_the_peak_corrected_and_decoupled_agree_and_elsewhere_they_do_not():
    assert convert_decay(0.1, "corrected", "decoupled", lr=0.7, lr_max=0.7).value == pytest.approx(0.1, rel=1e-15)
    assert convert_decay(0.1, "corrected", "decoupled", lr=0.07, lr_max=0.7).value == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)), ids=str)
def test_no_decay_is_no_decay_everywhere(source, target):
    for lr in (0.0, 0.1):
        nothing = convert_decay(0.0, source, target, lr, lr_max=0.1)
        assert (nothing.value, nothing.shrink) == (0.0, 0.0)


def test_extremes():
    still = convert_decay(0.1, "decoupled", "independent", lr=0.0, lr_max=1.0)
    assert (still.value, still.shrink) == (0.0, 0.0)
    assert convert_decay(0.1, "decoupled", "corrected", lr=1e200, lr_max=1e200).value == pytest.approx(0.1, rel=1e-12)
    assert convert_decay(0.1, "corrected", "decoupled", lr=0.0, lr_max=0.0).value == 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-0.1, "decoupled", "independent", 0.1, 0.1), "value"),
        ((math.inf, "decoupled", "independent", 0.1, 0.1), "value"),
        ((0.1, "l2", "independent", 0.1, 0.1), "source"),
        ((0.1, "decoupled", "none", 0.1, 0.1), "target"),
        ((0.1, "decoupled", None, 0.1, 0.1), "target"),
        ((0.1, "decoupled", "independent", 0.2, 0.1), "lr"),
        ((0.1, "decoupled", "independent", -0.1, 0.1), "lr"),
        ((0.1, "decoupled", "independent", 0.1, math.nan), "lr_max"),
        ((0.1, "independent", "decoupled", 0.0, 0.1), "must be positive"),
        ((0.1, "independent", "corrected", 0.0, 0.1), "must be positive"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, words):
    with pytest.raises(InputError, match=words):
        convert_decay(*arguments)


@pytest.mark.parametrize("extra", [{"momentum": 1.0}, {"momentum": -0.1}, {"momentum": 0.9, "dampening": 1.0}])
def test_bad_momentum_gets_one_sentence(extra):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        convert_decay(0.1, "coupled", "decoupled", 0.1, 0.1, **extra)
