import json
import shutil

import numpy as np
import pytest

from bridge.runs import predict_run
from decaylab.cli import main
from empirics.train import train
from tests.tiny import tiny
from theory.optimizers import AdamW


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    config = tiny(
        tmp_path_factory.mktemp("bin"),
        optimizer=AdamW(lr=4e-3, weight_decay=0.3),
        steps=100,
        batch_size=4,
        rotation_every=1,
    )
    return train(config, tmp_path_factory.mktemp("runs"), predict=predict_run, device="cpu")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["compare", *arguments])
    return end.value.code


def test_a_run_compared_with_itself_as_the_reference(record, capsys):
    """Its own curve at every step: what is left is the norm's path inside a piece of the run."""
    assert run(str(record.path), "--reference", str(record.path), "--start", "50", "--json") == 0
    (out,) = json.loads(capsys.readouterr().out)
    rows = [row for row in out["table"] if row["quantity"] == "norm" and ".h." in row["tensor"]]
    assert rows
    assert all(abs(row["residual"]) < 0.01 for row in rows)
    assert run(str(record.path), "--reference", str(record.path)) == 0
    assert "prediction from reference runs" in capsys.readouterr().out


def test_rates_that_left_the_schedule(record, tmp_path, capsys):
    """A watch's notes are shown, and what it stored for the rates as they were can be compared with."""
    assert run(str(record.path), "--seen") == 2
    assert "never left the schedule" in capsys.readouterr().err
    watched = tmp_path / record.path.name
    shutil.copytree(record.path, watched)
    (watched / "notes.json").write_text(json.dumps(["The learning rate left the schedule at step 7."]))
    double = record.prediction()
    double["value"] *= 2
    double.to_parquet(watched / "prediction_seen.parquet", index=False)
    tables = []
    for more in ((), ("--seen",)):
        assert run(str(watched), "--json", *more) == 0
        (out,) = json.loads(capsys.readouterr().out)
        assert out["notes"] == ["The learning rate left the schedule at step 7."]
        tables.append(np.array([row["predicted"] for row in out["table"]]))
    np.testing.assert_allclose(tables[1], 2 * tables[0], rtol=1e-12)
    assert run(str(watched), "--seen") == 0
    printed = capsys.readouterr().out
    assert "on the rates as they were" in printed
    assert "left the schedule at step 7" in printed
    assert run(str(watched), "--seen", "--reference", str(record.path)) == 2
