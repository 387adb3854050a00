"""What the groups said, as recipes."""

import numpy as np
import pytest
import torch
from torch import nn

from bridge.law_of import law_of
from bridge.watch_rates import RateLog
from bridge.watch_recipe import Member, Rates, announced, observed, recipes
from bridge.watch_schedule import rates_ahead
from empirics import scale_free
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, Signum
from theory.predict import predict
from theory.schedules import Constant, Cosine, Linear, Piecewise

W = Member("w", (4, 4), 1.0, False, False)


def weights():
    return [nn.Parameter(torch.ones(4, 4))]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
            SGD(0.1, 0.9, weight_decay=1e-4, nesterov=True),
        ),
        (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2), Adam(0.1, weight_decay=0.2)),
        (
            lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2, decoupled_weight_decay=True),
            AdamW(0.1, weight_decay=0.2),
        ),
        (lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9)), AdamW(0.1, (0.8, 0.9))),
        (lambda p: torch.optim.Muon(p, lr=0.1, ns_steps=6), Muon(0.1, ns_steps=6)),
        (lambda p: scale_free.Lion(p, lr=0.1, weight_decay=0.3), Lion(0.1, weight_decay=0.3)),
        (lambda p: scale_free.Signum(p, lr=0.1), Signum(0.1)),
        (lambda p: scale_free.NormalizedMomentum(p, lr=0.1), NormalizedMomentum(0.1)),
        (lambda p: scale_free.Hyperball(p, lr=0.1), Hyperball(0.1)),
    ],
)
def test_every_class_that_theory_knows_is_predicted(build, expected):
    optimizer = build(weights())
    law = law_of(optimizer, optimizer.param_groups[0])
    assert law == expected
    track = announced(law, Constant(), peak=0.1, decay=law.weight_decay)
    (recipe,), reasons = recipes([(track, [W])], 10)
    assert recipe.optimizer == expected
    assert not reasons
    predict(recipe)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda p: torch.optim.NAdam(p), "NAdam"),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize"),
    ],
)
def test_others_have_a_reason(build, word):
    optimizer = build(weights())
    with pytest.raises(InputError, match=word):
        law_of(optimizer, optimizer.param_groups[0])


def test_a_recipe_of_rates_seen_predicts_what_the_recipe_of_the_schedule_does():
    steps = np.arange(300)
    law, shape = AdamW(3e-3, (0.9, 0.95), weight_decay=0.5), Cosine(warmup=30, final=0.1).at(steps, 300)
    seen = observed(law, Rates(3e-3 * shape, np.full(300, 0.5), [(0.9, 0.95)] * 300))
    told = announced(law, Cosine(warmup=30, final=0.1), peak=3e-3, decay=0.5)
    found = [predict(recipes([(track, [W])], 300)[0][0]).values(steps) for track in (seen, told)]
    for quantity, values in found[0].items():
        np.testing.assert_allclose(values, found[1][quantity], rtol=1e-9)


def test_changes_that_have_a_law_and_changes_that_have_none():
    constant, falling = np.full(4, 0.1), np.array([0.4, 0.4, 0.2, 0.2])
    track = observed(AdamW(0.1), Rates(constant, falling, [(0.9, 0.99)] * 4))
    assert track.law.decay is Decay.SCHEDULED
    assert (track.decay, track.decay_schedule) == (0.4, Piecewise(knots=((0, 1.0), (2, 0.5))))
    track = observed(AdamW(0.1), Rates(constant, constant, [(0.9, 0.99)] * 2 + [(0.8, 0.99)] * 2))
    assert track.betas == ((0, (0.9, 0.99)), (2, (0.8, 0.99)))
    with pytest.raises(InputError, match=r"weight_decay changed.*coupled"):
        observed(SGD(0.1), Rates(constant, falling, [0.9] * 4))
    with pytest.raises(InputError, match="momentum changed"):
        observed(SGD(0.1), Rates(constant, constant, [0.9, 0.9, 0.8, 0.8]))
    with pytest.raises(InputError, match="learning rate was 0"):
        observed(SGD(0.1), Rates(0 * constant, constant, [0.9] * 4))


def test_groups_on_one_curve_share_a_recipe_whatever_their_rate_and_decay():
    shape = Linear().at(np.arange(10), 10)
    names = ("a", "b", "c")
    pairs = []
    for name, peak, decay in zip(names, (0.3, 0.1, 0.07), (0.0, 0.1, 0.2), strict=True):
        rates = Rates(peak * shape, np.full(10, decay), [(0.9, 0.99)] * 10)
        pairs.append((observed(AdamW(0.1), rates), [W._replace(name=name)]))
    (recipe,), _ = recipes(pairs, 10)
    assert recipe.optimizer.lr == 0.3
    groups = {group.name: group for group in recipe.groups}
    for name, peak, decay in zip(names, (0.3, 0.1, 0.07), (0.0, 0.1, 0.2), strict=True):
        assert recipe.lr(range(10), groups[name]) == pytest.approx(peak * shape)
        assert recipe.decay_of(groups[name]) == decay


def test_slices_of_a_matrix_that_is_treated_as_one_have_no_law():
    track = announced(Muon(0.1), Constant(), peak=0.1, decay=0.1)
    found, reasons = recipes([(track, [W._replace(is_part=True), W._replace(name="v", shape=(4,))])], 10)
    assert not found
    assert reasons == {
        "w": "it is a slice of a parameter that Muon treats as a whole",
        "v": "Muon's law is for matrices",
    }


SCHEDULERS = {
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, [lambda t: 1 / (1 + t), lambda t: 0.5**t]),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=[0.5, 0.2], total_steps=20),
    "sequence": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, total_iters=5),
            torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=15),
        ],
        milestones=[5],
    ),
    "chained": lambda o: torch.optim.lr_scheduler.ChainedScheduler(
        [
            torch.optim.lr_scheduler.ConstantLR(o, total_iters=4),
            torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
        ]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("done", [0, 7])
def test_a_scheduler_is_run_ahead_without_being_touched(name, done):
    def build():
        model = nn.ParameterList([nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))])
        optimizer = torch.optim.SGD([{"params": model[0]}, {"params": model[1], "lr": 0.02}], lr=0.1, momentum=0.9)
        scheduler = SCHEDULERS[name](optimizer)
        for _ in range(done):
            optimizer.step()
            scheduler.step()
        return optimizer, scheduler

    def follow(optimizer, scheduler):
        found = []
        for t in range(done, 20):
            found.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            if t < 19:
                scheduler.step()
        return np.array(found)

    expected = follow(*build())
    optimizer, scheduler = build()
    ahead = rates_ahead(scheduler, optimizer, 20 - done)
    np.testing.assert_array_equal(ahead, expected)
    np.testing.assert_array_equal(follow(optimizer, scheduler), expected)  # as if nothing had been asked


def test_a_scheduler_that_needs_a_loss_cannot_be_run_ahead():
    optimizer = torch.optim.SGD(weights(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InputError, match="schedule = ReduceLROnPlateau cannot be run ahead"):
        rates_ahead(scheduler, optimizer, 5)


def test_rates_on_the_device_are_kept_as_they_were():
    lr = torch.tensor(0.5)
    optimizer = torch.optim.AdamW(weights(), lr=lr)
    log = RateLog()
    for _ in range(3):
        log.read(optimizer)
        log.done(optimizer)
        lr.mul_(0.5)
    assert log.of(0).lr.tolist() == [0.5, 0.25, 0.125]
