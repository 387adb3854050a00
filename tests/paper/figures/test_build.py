from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.models import ResNetConfig
from empirics.records import Record
from paper.figures import build as building
from paper.figures.build import build, missing, stamp
from paper.figures.claims import claim, interval
from paper.figures.spec import Spec
from paper.figures.table import read_table
from paper.figures.verdicts import caption, read_checks, write_checks
from theory.errors import InputError
from theory.optimizers import SGD

BASE = TrainConfig(
    name="tiny",
    model=ResNetConfig(width=2),
    data=ImageData(train=64),
    optimizer=SGD(lr=0.1),
    steps=6,
    batch_size=16,
    eval_every=3,
    checkpoint_every=0,
)


def tiny_runs() -> list[TrainConfig]:
    return [replace(BASE, seed=seed) for seed in (0, 1)]


def tiny_draw(table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    losses = table[table["quantity"] == "train_loss"]
    figure.subplots().plot(losses["step"], losses["value"], "o")
    return figure


def tiny_claims(table: pd.DataFrame) -> list:
    losses = table[(table["quantity"] == "train_loss") & (table["step"] == 6)]
    return [claim("none", "loss is below 10 nats", losses["value"], 10.0, "<=")]


@pytest.fixture
def tiny() -> Spec:
    return Spec(
        name="tiny",
        statement="Training loss is small.",
        drawn="Training loss.",
        origin="ours",
        runs={"cpu": tiny_runs},
        draw=tiny_draw,
        claims=tiny_claims,
    )


def test_a_figure_is_trained_drawn_judged_and_drawn_again_without_runs(tiny, tmp_path, monkeypatch):
    results, said = tmp_path / "results", []
    first = build(tiny, runs=tmp_path / "runs", results=results, jobs=2, say=said.append)
    assert "2 of 2 runs to do" in said[0]
    assert [path.suffix for path in first.files] == [".parquet", ".pdf", ".png"]
    assert all(path.stat().st_size > 1_000 for path in first.files)
    assert not first.missing
    assert set(first.table.rows["step"]) == {3, 6}
    for config in tiny_runs():
        record = Record(tmp_path / "runs" / config.directory)
        rows = first.table.rows
        rows = rows[(rows["run"] == config.directory) & (rows["step"] == 6)].set_index("quantity")["value"]
        assert rows["test_error"] == record.series("test_error").iloc[-1]
        assert rows["train_loss"] == pytest.approx(record.series("loss").mean())
        assert first.table.runs[config.directory]["data_hash"] == record.description["data_hash"]
    assert first.table.environments[0]["packages"]["torch"]
    assert "command" not in first.table.environments[0]

    write_checks([first], scale="cpu", results=results)
    before = {path: path.read_bytes() for path in (results / "cpu").iterdir()}
    monkeypatch.setattr(building, "run_all", None)  # nothing may be run
    again = build(tiny, runs=tmp_path / "nowhere", results=results)
    write_checks([again], scale="cpu", results=results)
    assert {path: path.read_bytes() for path in (results / "cpu").iterdir()} == before

    entry = read_checks("cpu", results=results)["tiny"]
    assert entry["verdict"] == "fail"  # two seeds are too few
    assert entry["seeds"] == [0, 1]
    assert {name: run["config_hash"] for name, run in entry["runs"].items()} == {
        config.directory: config.hash for config in tiny_runs()
    }
    assert "undecided for lack of seeds" in entry["caption"]
    assert "decaylab figure tiny --scale cpu" in entry["caption"]

    more = replace(tiny, runs={"cpu": lambda: [*tiny_runs(), replace(BASE, seed=2)]})
    assert [config.seed for config in missing(more, again.table, "cpu")] == [2]
    partial = build(more, runs=tmp_path / "nowhere", results=results, train=False)
    assert partial.verdict == "incomplete"
    assert len(partial.table.runs) == 2  # what was committed stays


def test_runs_that_need_images_are_left_out_without_them(tiny, tmp_path):
    from paper.figures.setups import cifar

    far = replace(tiny, runs={"cpu": lambda: [cifar(0.3, 0.0, 3)]})
    said = []
    outcome = build(far, runs=tmp_path / "runs", results=tmp_path, say=said.append)
    assert "need CIFAR-10 (--data parquet:DIR)" in said[0]
    assert outcome.verdict == "incomplete"
    assert outcome.files == ()


def test_a_simulation_is_computed_once_and_again_when_its_inputs_change(tiny, tmp_path):
    calls = []

    def simulate(scale: str) -> pd.DataFrame:
        calls.append(scale)
        rows = {
            "run": ["a", "b", "c"],
            "seed": [0, 1, 2],
            "step": 6,
            "quantity": "train_loss",
            "value": [1.0, 2.0, 3.0],
        }
        return pd.DataFrame(rows)

    spec = replace(tiny, runs={}, simulation=simulate, inputs={"cpu": {"n": 3}})
    assert build(spec, results=tmp_path).verdict == "pass"
    assert build(spec, results=tmp_path).verdict == "pass"
    assert calls == ["cpu"]
    build(replace(spec, inputs={"cpu": {"n": 4}}), results=tmp_path)
    assert calls == ["cpu", "cpu"]
    with pytest.raises(InputError, match="must be one of cpu"):
        build(spec, scale="gpu", results=tmp_path)


def test_a_failed_claim_is_written_below_the_drawing(tiny):
    table = pd.DataFrame({"step": [6], "quantity": ["train_loss"], "value": [1.0]})
    passed, failed = (claim("l", f"claim {b}", [1.0, 1.1, 1.2], b, "<=") for b in (2.0, 0.5))
    figure = tiny.draw(table)
    height = figure.get_size_inches()[1]
    stamp(figure, [passed, failed])
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "1 of 2 checks hold, 3 seeds"
    assert texts[1].startswith("fails: claim 0.5: 1.1 [")
    assert figure.get_size_inches()[1] > height


def test_what_a_claim_needs_to_pass():
    assert claim("l", "c", [0.10, 0.11, 0.12], 0.08, ">=", null=0.0).passed
    assert not claim("l", "c", [0.10, 0.11], 0.08, ">=").passed  # two seeds
    assert not claim("l", "c", [0.07, 0.07, 0.07], 0.08, ">=").passed  # below the bound
    assert not claim("l", "c", [-0.1, 0.1, 0.4], 0.08, ">=", null=0.0).passed  # the interval holds 0
    assert not claim("l", "c", [0.1, 0.1, float("nan")], 0.08, ">=").passed
    assert claim("l", "c", [-0.95, -0.93, -0.96], -0.9, "<=", null=0.0).passed
    assert not claim("l", "c", [], 1.0, "<=").passed


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = [low < 1.0 < high for _, low, high in (interval(rng.normal(1.0, 2.0, 3)) for _ in range(4_000))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors of a frequency of 0.95 in 4,000


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"x\.parquet is damaged"):
        read_table(tmp_path / "x.parquet")


def test_checks_of_other_figures_stay(tiny, tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "checks.json").write_text(json.dumps({"figures": {"laws": {"verdict": "pass"}}}))
    outcome = build(tiny, runs=tmp_path / "runs", results=tmp_path, train=False)
    assert "Training loss is small." in caption(outcome, "cpu")
    write_checks([outcome], scale="cpu", results=tmp_path)
    assert read_checks("cpu", results=tmp_path)["laws"] == {"verdict": "pass"}
