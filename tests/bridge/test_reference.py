import json
from dataclasses import replace

import numpy as np
import pytest

from bridge.reference import reference
from bridge.runs import predict_run
from empirics.records import Record
from empirics.train import train
from tests.tiny import tiny
from theory.errors import InputError
from theory.optimizers import AdamW
from theory.predict import predict
from theory.schedules import Cosine


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of one network that differ in rate and decay."""
    base = tiny(
        tmp_path_factory.mktemp("bin"),
        tokens=20_000,
        optimizer=AdamW(lr=4e-3, weight_decay=0.3),
        schedule=Cosine(warmup=20, final=0.1),
        steps=200,
        batch_size=8,
        rotation_every=2,
    )
    root = tmp_path_factory.mktemp("runs")
    return [
        train(replace(base, optimizer=AdamW(lr=lr, weight_decay=wd)), root, predict=predict_run, device="cpu")
        for lr, wd in ((4e-3, 0.3), (16e-3, 0.3), (8e-3, 0.0))
    ]


def test_a_run_is_its_own_reference(runs):
    """One run's pieces begin and end at its measured norms, so its own prediction meets them up to rounding."""
    found = reference(runs[0])
    norm = runs[0].pivot("norm")
    matrix = "transformer.h.0.mlp.c_fc.weight"
    values = predict(runs[0].recipe, reference=found)
    ends = [edge - 1 for edge in found.edges[1:]]
    column = [group.name for group in runs[0].recipe.groups].index(matrix)
    np.testing.assert_allclose(values.values(ends)["norm"][:, column], norm.loc[ends, matrix], rtol=1e-4)


def test_the_command_takes_the_tensors_of_the_first_reference(runs, capsys, monkeypatch):
    from decaylab.cli import main

    paths = [str(run.path) for run in runs[:2]]
    options = ("--lr", "8e-3", "--weight-decay", "0", "--steps", "200", "--warmup", "20", "--final", "0.1")
    monkeypatch.setattr("sys.argv", ["decaylab", "predict", "--reference", *paths, *options, "--at", "199", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    out = json.loads(capsys.readouterr().out)
    rows = {(row["group"], row["quantity"]): row["value"] for row in out["table"]}
    name = "transformer.h.0.mlp.c_fc.weight"
    want = predict(runs[2].recipe, reference=reference(runs[:2])).at(199).loc[name, "norm"]
    assert rows[name, "norm"] == pytest.approx(want, rel=1e-9)


def test_what_it_refuses(runs, tmp_path):
    import decaylab as dl

    assert dl.reference is reference
    with pytest.raises(InputError, match="nowhere is new: a reference must be a finished run"):
        reference(["nowhere"])
    bare = tmp_path / "bare-00000000"
    bare.mkdir()
    for name in ("config.json", "metrics.parquet"):
        (bare / name).write_bytes((runs[0].path / name).read_bytes())
    with pytest.raises(InputError, match="holds no recipe"):
        reference(Record(bare))
