"""The judge of one_run_predicts_the_sweep, on norms that obey its model and on norms that do not."""

import numpy as np
import pandas as pd
import pytest

from paper.figures.one_run_predicts_the_sweep import RATES, claims, draw, runs
from paper.figures.reference_scores import EVERY, SIZES, read
from theory.trajectory.reference_path import kicks, rates


def table(power, seeds):
    """Runs whose ||w||^2 grows by 50 ||w||^power per step and squared rate."""
    parts = []
    for config in runs():
        if config.seed not in seeds:
            continue
        labels = {"run": config.directory, "lr": config.optimizer.lr, "wd": config.optimizer.weight_decay}
        kind = "cosine" if "cosine" in config.name else "constant"
        labels |= {"seed": config.seed, "kind": kind, "steps": float(config.steps)}
        steps = np.arange(0, config.steps, EVERY)
        start = {"step": [-1, *steps, *steps, *steps[steps >= config.steps // 2]]}
        flat = np.ones(len(steps))
        for name in SIZES:
            q = ["norm"] * (1 + len(steps)) + ["relative_update"] * len(steps)
            q += ["angle"] * int((steps >= config.steps // 2).sum())
            values = np.concatenate([[2.0], flat, 1e-3 * flat, 1e-3 * flat[steps >= config.steps // 2]])
            parts.append(
                pd.DataFrame({**start, "quantity": q, "value": values}).assign(tensor=f"t.h.0.{name}", **labels)
            )
    frame = pd.concat(parts, ignore_index=True)
    for seed in seeds:
        for run in read(frame, seed):
            recipe = run.measured.recipe
            lr, keep = rates(recipe, recipe.groups[0])
            w, squares = 4.0, []
            for t, kick in enumerate(kicks(lr)):
                w = keep[t] ** 2 * w + kick * 50 * w ** (power / 2)
                squares.append(w)
            at = (frame["seed"] == seed) & (frame["lr"] == run.lr) & (frame["wd"] == run.wd)
            at &= (frame["steps"] == recipe.steps) & (
                frame["kind"] == ("cosine" if "Cos" in str(recipe) else "constant")
            )
            norm = at & (frame["quantity"] == "norm") & (frame["step"] >= 0)
            frame.loc[norm, "value"] = np.sqrt(np.array(squares))[frame.loc[norm, "step"].to_numpy()]
    return frame


@pytest.fixture(scope="module")
def one():
    return table(-1.0, (3,))


@pytest.fixture(scope="module")
def three(one):
    return pd.concat([one, one.assign(seed=4), one.assign(seed=5)], ignore_index=True)


def test_norms_that_obey_the_model_pass_and_two_references_know_the_power(three):
    found = {c.claim: c for c in claims(three) if "norm" in c.claim}
    assert all(c.passed for name, c in found.items() if name.startswith("two"))
    two = found["two references: median error of the norm, all unseen runs"].measured
    one = found["one reference: median error of the norm"].measured
    assert two < one / 3


def test_norms_that_differ_from_run_to_run_fail(three):
    """A factor of its own for every run, of 30 %, cannot be known from others."""
    rng = np.random.default_rng(0)
    factors = {run: np.exp(0.3 * rng.standard_normal()) for run in three["run"].unique()}
    norms = (three["quantity"] == "norm") & (three["step"] >= 0)
    moved = three["value"] * three["run"].map(factors).where(norms, 1.0)
    assert not any(c.passed for c in claims(three.assign(value=moved)) if "norm" in c.claim)


def test_too_few_seeds_decide_nothing(one):
    assert all(c.verdict == "undecided" for c in claims(one))


def test_it_is_drawn(one):
    assert len(draw(one).axes) == 3


def test_its_runs_are_those_of_the_specification():
    configs = runs()
    assert {config.optimizer.lr for config in configs} == set(RATES)
    assert all(c.optimizer.lr * c.optimizer.weight_decay * c.steps <= 5 for c in configs)
    assert len(configs) == len({config.directory for config in configs}) == 3 * 14
