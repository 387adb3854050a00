"""Every rule that applies, side by side; and the a-priori power law."""

import pytest

from theory.errors import InputError
from theory.recommend import TPP_CONSTANT, advise
from theory.transfer import transfer

HAVE = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 128, "steps": 10_000, "width": 256, "dataset_size": 1e6}


def test_answers_are_those_of_the_single_rules():
    want = {"steps": 40_000, "batch_size": 256}
    answers = advise(HAVE, want)
    assert len(answers) >= 3
    assert answers == [transfer(HAVE, want, answer.rule) for answer in answers]
    assert len({answer.weight_decay for answer in answers}) > 1


def test_a_rule_that_lacks_a_size_is_left_out():
    assert "tokens_per_parameter" not in [answer.rule for answer in advise(HAVE, {"width": 512, "steps": 20_000})]


def test_power_law_without_a_tuned_setting():
    (answer,) = advise({"parameters": 1e6, "tokens": 2e7, "batch_size": 1e4, "lr": 0.01})
    memory = 1 / (answer.lr * answer.weight_decay)
    assert memory / 2_000 == pytest.approx(TPP_CONSTANT * 20**-0.527)


@pytest.mark.parametrize(
    ("have", "want"),
    [(HAVE, {}), (HAVE, {"heads": 3}), (HAVE, None), ({"lr": 1.0, "weight_decay": 0.1}, {"steps": 5}), ({}, None)],
)
def test_bad_input(have, want):
    with pytest.raises(InputError):
        advise(have, want)
