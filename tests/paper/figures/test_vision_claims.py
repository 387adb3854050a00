"""Claims of the vision figures on made-up numbers whose answer is known, and the order of runs that need each other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from empirics.experiments import DIGITS_CONSTANT, DIGITS_EPOCH
from empirics.origins import followed
from paper import style
from paper.figures import load, noise_driven_process, sphere, vgg_curves
from paper.figures.order import with_followed

RNG = np.random.default_rng(0)


def verdicts(claims) -> dict[str, bool]:
    return {claim.claim: claim.passed for claim in claims}


def sphere_table(factors: Mapping[str, float], spread: float = 0.0) -> pd.DataFrame:
    """Losses of 1 nat and Jacobian norms of 100, times a factor an arm; the factor's scatter grows with the epoch."""
    rows = []
    for config in load("sphere").configs("cpu"):
        arm = str(sphere.labels(config)["arm"])
        for epoch in range(1, sphere.EPOCHS + 1):
            value = factors[arm] * (1 + (arm != sphere.DECAYED) * spread * RNG.normal() * (epoch > sphere.EARLY))
            common = (config.directory, arm, config.seed, epoch * DIGITS_EPOCH)
            rows += [(*common, "train_loss", value), (*common, "jacobian_fro", 100 * value)]
            rows.append((*common, "test_error", 0.1))
    return pd.DataFrame(rows, columns=["run", "arm", "seed", "step", "quantity", "value"])


def test_equal_effective_rates_must_give_equal_runs_and_others_not():
    good: dict[str, float] = dict(zip(sphere.ARMS, (1.0, 1.0, 1.03, 0.5, 1.6), strict=True))
    assert all(verdicts(sphere.claims(sphere_table(good, 0.02))).values())
    for arm, value, words in (
        (sphere.TRACKED, 1.02, ("rates followed: loss of epochs", "rates followed: training loss")),
        (sphere.MEAN, 1.2, ("mean rates: training loss", "mean rates: Jacobian")),
        (sphere.QUARTER, 1.0, ("a quarter of the mean rates: training", "a quarter of the mean rates: Jac")),
        (sphere.FOUR, 0.95, ("four times the mean rates: training", "four times the mean rates: Jac")),
    ):
        found = verdicts(sphere.claims(sphere_table(good | {arm: value})))
        assert [sentence for sentence, passed in found.items() if not passed and sentence.startswith(words)]
        assert all(passed for sentence, passed in found.items() if not sentence.startswith(words))
    alone = sphere_table(good)
    assert not any(verdicts(sphere.claims(alone[alone["arm"] == sphere.DECAYED])).values())
    with style.style():
        assert len(sphere.draw(sphere_table(good)).axes) == 4


def noise_table(*, ratio: float, rise: float, gap: float, drift: float) -> pd.DataFrame:
    """Fine-tuned Jacobian norms fall by `ratio` with decay and rise by `rise` without; losses drift; errors differ."""
    rows = []
    for config in load("noise_driven_process").configs("cpu"):
        label = noise_driven_process.labels(config)
        arm = (label.get("lr", config.optimizer.lr), label.get("wd", config.optimizer.weight_decay))
        late = label["after"] == noise_driven_process.TUNED[-1]
        factor = (ratio if arm[1] else rise) if late else 1.0
        common = (config.directory, label["kind"], *arm, label["after"], config.seed)
        for epoch in range(1, config.steps // DIGITS_EPOCH + 1):
            values = {
                "train_loss": 1.0 + drift * epoch / 30,
                "jacobian_fro": 150 * factor * (1 + 0.01 * RNG.normal()),
                "test_error": 0.03 + (gap if arm[1] == 0 else 0.0) + 0.002 * RNG.normal(),
            }
            rows += [(*common, epoch * DIGITS_EPOCH, quantity, value) for quantity, value in values.items()]
    return pd.DataFrame(rows, columns=["run", "kind", "lr", "wd", "after", "seed", "step", "quantity", "value"])


def test_the_noise_must_stay_alive_and_the_fine_tuned_iterate_improve_with_decay_alone():
    good = {"ratio": 0.4, "rise": 4.0, "gap": 0.15, "drift": 0.05}
    claims = noise_driven_process.claims(noise_table(**good))
    assert [claim.passed for claim in claims] == [True] * 4
    assert claims[1].measured == pytest.approx(0.4, rel=0.03)
    assert claims[3].measured == pytest.approx(0.15, abs=0.01)
    for place, change in enumerate(({"drift": -0.5}, {"ratio": 0.8}, {"rise": 1.5}, {"gap": 0.05})):
        found = [claim.passed for claim in noise_driven_process.claims(noise_table(**(good | change)))]
        assert found == [number != place for number in range(4)]
    with style.style():
        assert len(noise_driven_process.draw(noise_table(**good)).axes) == 6


def vgg_table(gains: tuple[float, ...], revealed: float) -> pd.DataFrame:
    rows = []
    for config in load("vgg_curves").configs("cpu"):
        arm = (config.optimizer.lr, config.optimizer.weight_decay)
        error = 0.05 + dict(zip(vgg_curves.ARMS, (0.0, *gains), strict=True))[arm]
        common = (config.directory, *arm, config.seed)
        for step, value in ((DIGITS_CONSTANT, error + revealed), (config.steps, error)):
            rows.append((*common, step, "test_error", value + 0.002 * RNG.normal()))
            rows += [(*common, step, "train_loss", 1.0), (*common, step, "jacobian_fro", 100.0)]
    return pd.DataFrame(rows, columns=["run", "lr", "wd", "seed", "step", "quantity", "value"])


def test_without_normalisation_every_gain_must_be_beyond_its_interval():
    assert all(claim.passed for claim in vgg_curves.claims(vgg_table((0.1, 0.1, 0.1), 0.05)))
    found = [claim.passed for claim in vgg_curves.claims(vgg_table((0.1, 0.0, -0.1), -0.05))]
    assert found == [True, False, False, False]
    with style.style():
        assert len(vgg_curves.draw(vgg_table((0.1, 0.1, 0.1), 0.05)).axes) == 3


def test_runs_come_after_those_they_need_and_lost_ones_are_made_again():
    for name in ("sphere", "noise_driven_process"):
        configs = load(name).configs("cpu")
        place = {config.directory: number for number, config in enumerate(configs)}
        assert all(place[origin] < place[c.directory] for c in configs for origin in followed(c))
    every = load("noise_driven_process").configs("cpu")
    assert with_followed(every, every, lambda config: False) == list(every)
    lost = with_followed([every[-1]], every, lambda config: False)
    assert [c.name.partition("-lr")[0] for c in lost] == ["noise-tuned30", "noise", "noise-start-seed5"]
    assert with_followed([every[-1]], every, lambda config: True) == [every[-1]]
    assert with_followed([], every, lambda config: True) == []
