"""The twins on the vectors' own problems: trained without decay, they end where the decayed optimizer is stated to."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import theory

SGD, ADAM, LION = "sgd", "adamw", "lion"
LAWS = (
    "sgd_exponential_lr",
    "sgd_exponential_schedule",
    "adamw_exponential_lr",
    "lion_exponential_lr",
    "lion_exponential_schedule",
)
FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = {
    f"{law}-{index}": (law, vector)
    for law in LAWS
    for index, vector in enumerate(json.loads((FOLDER / f"{law}.json").read_text()))
}
DECAYED = {name: case for name, case in VECTORS.items() if case[1]["inputs"]["weight_decay"] > 0}


def test_each_law_has_its_vectors():
    assert all(sum(law == other for other, _ in VECTORS.values()) >= 3 for law in LAWS)


def split(vector):
    """The law's arguments, and the problem: where it starts, its curvatures."""
    arguments = dict(vector["inputs"])
    start = torch.tensor(arguments.pop("weight0"), dtype=torch.float64)
    return arguments, start, arguments.pop("curvatures")


def ends(run, vector, ratio):
    """Whether a run that is 1/ratio times larger ends as stated, component by component."""
    direction, norm = run.units[-1][0], run.norms[-1, 0] * ratio
    expected, bar = vector["expected"], vector["tolerance"]
    np.testing.assert_allclose(direction, expected["direction"], rtol=bar["direction"], atol=0)
    np.testing.assert_allclose(norm, expected["norm_with_decay"], rtol=bar["norm_with_decay"], atol=0)


@pytest.mark.parametrize(("law", "vector"), VECTORS.values(), ids=VECTORS)
def test_twin_ends_where_the_decayed_run_does(train, sphere, lion, law, vector):
    arguments, start, curvatures = split(vector)
    twin, steps = getattr(theory, law)(**arguments), len(curvatures)
    momentum, dampening = arguments.get("momentum", 0.0), arguments.get("dampening", 0.0)
    build = {
        SGD: lambda w: torch.optim.SGD(w, momentum=momentum, dampening=dampening),
        ADAM: torch.optim.Adam,
        LION: lion,
    }[law.split("_")[0]]
    plan, buffer = twin, 0.0
    if law == "sgd_exponential_lr":
        assert twin.alpha == pytest.approx(vector["expected"]["alpha"], rel=vector["tolerance"]["alpha"], abs=0)
        plan = {"lr": arguments["lr"] * twin.alpha ** (-2.0 * np.arange(steps) - 1)}
        buffer, ratio = twin.buffer_coefficient, twin.alpha**steps
    elif law == "lion_exponential_lr":
        plan = {"lr": arguments["lr"] * twin.growth ** np.arange(1, steps + 1), "betas": [twin.betas] * steps}
        ratio = twin.growth**-steps
    else:
        ratio = twin.norm_ratio[-1]
    ends(train(build, [start], sphere(curvatures), steps, plan, buffer), vector, ratio)


@pytest.mark.parametrize(("law", "vector"), VECTORS.values(), ids=VECTORS)
def test_decayed_run_ends_as_stated(train, sphere, lion, law, vector):
    """The vectors themselves, and that this test's way of training is theirs."""
    arguments, start, curvatures = split(vector)
    plan = {"lr": arguments.pop("lrs", arguments.pop("lr", None))}
    kind = {SGD: torch.optim.SGD, ADAM: torch.optim.AdamW, LION: lion}[law.split("_")[0]]
    run = train(lambda w: kind(w, **arguments), [start], sphere(curvatures), len(curvatures), plan)
    ends(run, vector, 1.0)


@pytest.mark.parametrize(("law", "vector"), DECAYED.values(), ids=DECAYED)
def test_leaving_decay_out_is_another_run(train, sphere, lion, law, vector):
    """Without the twin's settings the stated end is missed by far more than its tolerance: the vectors can tell."""
    arguments, start, curvatures = split(vector)
    plan = {"lr": arguments.pop("lrs", arguments.pop("lr", None))}
    kind = {SGD: torch.optim.SGD, ADAM: torch.optim.AdamW, LION: lion}[law.split("_")[0]]
    run = train(
        lambda w: kind(w, **{**arguments, "weight_decay": 0.0}), [start], sphere(curvatures), len(curvatures), plan
    )
    miss = np.linalg.norm(run.units[-1][0] - vector["expected"]["direction"])
    assert miss > 1e3 * vector["tolerance"]["direction"]
