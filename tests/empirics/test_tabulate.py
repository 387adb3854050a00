import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from empirics import tabulate
from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.models import ResNetConfig
from empirics.records import Record, tidy
from empirics.sweep import Sweep
from empirics.tabulate import summarise, table
from empirics.train import train
from theory.optimizers import SGD, Adam
from theory.serialize import to_dict

BASE = TrainConfig(
    name="a",
    model=ResNetConfig(width=2),
    data=ImageData(train=64),
    optimizer=SGD(lr=0.1),
    steps=4,
    batch_size=16,
    rotation_every=1,
)
CONFIGS = [BASE, replace(BASE, optimizer=SGD(lr=0.2)), replace(BASE, optimizer=SGD(lr=1e30)), replace(BASE, steps=5)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [train(config, root) for config in CONFIGS[:3]]


def test_a_row_says_how_a_run_differs_and_where_it_ended(trained, tmp_path):
    records = [*trained, Record(tmp_path / CONFIGS[3].directory)]
    found = table(records, CONFIGS)
    assert list(found.columns)[:5] == ["run", "optimizer.lr", "steps", "status", "step"]
    assert list(found.columns)[-2:] == ["error", "directory"]
    assert found["optimizer.lr"].tolist() == [0.1, 0.2, 1e30, 0.1]
    assert found["status"].tolist() == ["finished", "finished", "diverged", "new"]
    assert found["step"].tolist() == [4, 4, records[2].divergence["step"] + 1, 0]
    for row, record in zip(found.to_dict("records"), trained[:2], strict=False):
        assert row["loss"] == record.series("loss").iloc[-1]
        assert row["test_loss"] == record.series("test_loss").iloc[-1]
        norms = record.pivot("norm").iloc[-1]
        assert row["norm"] == pytest.approx((norms**2).sum() ** 0.5, rel=1e-12)
        assert row["directory"] == str(record.path)
    wide = table(trained[:1], tensors=True)
    assert wide["norm:conv.weight"].item() == trained[0].series("norm", "conv.weight").iloc[-1]


def test_kinds_and_fields_that_came_later_are_compared_too(trained, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(trained[0].path, old)
    description = json.loads((old / "config.json").read_text())
    del description["config"]["averages"], description["config"]["tf32"]  # written before there were any
    (old / "config.json").write_text(json.dumps(description))
    assert list(table([Record(old), trained[1]]).columns)[1:3] == ["optimizer.lr", "status"]
    other = replace(BASE, optimizer=Adam(lr=0.1))
    found = table([trained[0], Record(tmp_path / "nowhere")], [BASE, other])
    assert found["optimizer"].tolist() == ["SGD", "Adam"]
    assert found["optimizer.betas"].tolist() == [None, (0.9, 0.999)]


def test_a_partial_run_shows_its_latest_loss(tmp_path):
    path = tmp_path / BASE.directory
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"config": to_dict(BASE)}))
    (path / "metrics.jsonl").write_text('{"step": 0, "values": {"loss": {"": 2.5}}}\n{"step"')
    row = Sweep.open(tmp_path).table().iloc[0]
    assert (row["status"], row["step"], row["loss"]) == ("partial", 1, 2.5)


def test_a_summary_is_made_anew_when_the_metrics_have_changed(trained):
    record = trained[0]
    first = summarise(record)
    assert json.loads((record.path / tabulate.SUMMARY).read_text()) == first
    (record.path / tabulate.SUMMARY).write_text(json.dumps(first | {"step": -1}))
    assert summarise(record)["step"] == -1  # read, not made
    (record.path / tabulate.SUMMARY).write_text(json.dumps(first | {"metrics_bytes": 1}))
    assert summarise(record) == first
    (record.path / tabulate.SUMMARY).write_text("{")
    assert summarise(record) == first


@pytest.mark.parametrize("rows", [0, 3])
def test_the_last_values_are_those_of_the_data_frame(rows, tmp_path):
    lines = [
        {"step": 0, "values": {"loss": {"": 3.0}, "norm": {"a": 1.0, "b": 2.0}}},
        {"step": 1, "values": {"loss": {"": 2.0}, "block": {"0": 9.0}}},
        {"step": 2, "values": {"val_loss": {"": None}, "norm": {"b": 4.0}}},
    ]
    record = Record(tmp_path)
    tidy("run", lines[:rows]).to_parquet(tmp_path / "metrics.parquet", index=False)
    found = summarise(record)
    table = record.metrics()
    for key, chosen, name in (
        ("final", table["tensor"] == "", "quantity"),
        ("norms", table["quantity"] == "norm", "tensor"),
    ):
        wanted = table[chosen].drop_duplicates(name, keep="last").set_index(name)["value"]
        assert {k: math.nan if v is None else v for k, v in found[key].items()} == pytest.approx(
            wanted.to_dict(), nan_ok=True
        )
    assert found["step"] == rows
    assert len(found["norms"]) == (2 if rows else 0)


OPENED: list[str] = []
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def test_fifty_runs_need_two_small_files_each_and_no_metrics(trained, tmp_path, monkeypatch):
    """What makes a thousand fit into seconds (benchmarks/sweep_table.py): config.json and summary.json are all."""
    summarise(trained[0])
    for number in range(50):
        shutil.copytree(trained[0].path, tmp_path / f"a-{number:08d}", ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.setattr(tabulate, "_ends", None)
    OPENED.clear()
    found = Sweep.open(tmp_path).table()
    opened = [Path(name) for name in OPENED if name.startswith(str(tmp_path))]
    assert len(found) == 50
    assert len(opened) == 100
    assert {path.name for path in opened} == {"config.json", "summary.json"}
    assert max(path.stat().st_size for path in opened) < 10_000
