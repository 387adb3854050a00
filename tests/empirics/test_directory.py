import errno
import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from empirics import directory
from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.directory import RunDirectory
from empirics.files import DiskFullError
from empirics.models import ResNetConfig
from empirics.records import Record
from theory.errors import InputError
from theory.optimizers import SGD
from theory.recipe import Group, Recipe

CONFIG = TrainConfig(
    name="run", model=ResNetConfig(), data=ImageData(), optimizer=SGD(lr=0.1, weight_decay=0.01), steps=9, batch_size=8
)


class Expected:
    recipe = Recipe(CONFIG.optimizer, steps=9, groups=(Group("w", (2,)),))

    def table(self):
        return pd.DataFrame({"step": [0], "group": ["w"], "quantity": ["norm"], "value": [1.0]})


def create(path, prediction=None):
    with RunDirectory(path, CONFIG) as run:
        run.create(environment={"python": "3"}, data_hash="abc", source="import this\n", prediction=prediction)


def test_a_new_run_holds_what_is_known_before_step_0(tmp_path):
    path = tmp_path / CONFIG.directory
    create(path, Expected())
    record = Record(path)
    assert record.status == "partial"
    assert record.config == CONFIG
    assert record.recipe == Expected.recipe
    assert record.prediction().equals(Expected().table())
    assert record.preregistered
    assert record.description["data_hash"] == "abc"
    assert record.description["hash"] == CONFIG.hash
    assert (path / "source.txt").read_text() == "import this\n"
    assert not (path / "lock").exists()


def test_a_prediction_altered_afterwards_is_not_preregistered(tmp_path):
    create(tmp_path / "a", Expected())
    table = Expected().table().assign(value=2.0)
    table.to_parquet(tmp_path / "a" / "prediction.parquet")
    assert not Record(tmp_path / "a").preregistered
    create(tmp_path / "b")
    assert Record(tmp_path / "b").prediction() is None
    assert not Record(tmp_path / "b").preregistered


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path):
    create(tmp_path)
    other = replace(CONFIG, optimizer=SGD(lr=0.2, weight_decay=0.01), steps=10)
    with pytest.raises(InputError) as caught:
        RunDirectory(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} holds another run: optimizer.lr is 0.1 there, 0.2 here; steps is 9 there, 10 here."
    )


def test_two_writers_are_refused(tmp_path):
    with RunDirectory(tmp_path, CONFIG), pytest.raises(InputError, match="is being written by"):
        RunDirectory(tmp_path, CONFIG)
    RunDirectory(tmp_path, CONFIG).__exit__()


def test_records_are_appended_cut_and_compacted(tmp_path):
    path = tmp_path / CONFIG.directory
    create(path)
    with RunDirectory(path, CONFIG) as run:
        run.append([(0, {"loss": {"": 2.0}, "norm": {"a": 1.0, "b": math.nan}})])
        run.append([(1, {"loss": {"": 1.5}}), (2, {"loss": {"": math.inf}})], sync=True)
        text = (path / "metrics.jsonl").read_text()
        assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1, 2]
        assert "NaN" not in text
        run.truncate(2)
        run.finish()
    record = Record(path)
    assert record.status == "finished"
    expected = pd.DataFrame(
        {
            "run": [path.name] * 4,
            "step": [0, 0, 0, 1],
            "tensor": ["", "a", "b", ""],
            "quantity": ["loss", "norm", "norm", "loss"],
            "value": [2.0, 1.0, math.nan, 1.5],
            "unit": ["nats", "1", "1", "nats"],
        }
    )
    pd.testing.assert_frame_equal(record.metrics(), expected, check_dtype=False)
    (path / "metrics.parquet").unlink()
    pd.testing.assert_frame_equal(record.metrics(), expected, check_dtype=False)


def test_a_full_disk_leaves_no_torn_line(tmp_path, monkeypatch):
    create(tmp_path)
    with RunDirectory(tmp_path, CONFIG) as run:
        run.append([(0, {"loss": {"": 2.0}})])
        before = (tmp_path / "metrics.jsonl").read_bytes()

        def half(stream, data):
            stream.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(directory, "_write_all", half)
        with pytest.raises(DiskFullError, match=r"metrics\.jsonl could not be written"):
            run.append([(1, {"loss": {"": 1.0}})])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
