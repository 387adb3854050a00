import json

import pytest

from empirics.records import Record
from theory.errors import InputError

LINES = [
    {"step": 0, "values": {"loss": {"": 2.0}, "norm": {"b": 1.0, "a": 3.0}, "angle": {"b": 0.1, "a": None}}},
    {"step": 1, "values": {"loss": {"": 1.0}}},
    {"step": 1, "values": {"norm": {"b": 2.0, "a": 4.0}}},
]


@pytest.fixture
def record(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return Record(tmp_path)


def test_series_and_pivot(record):
    assert record.series("loss").to_dict() == {0: 2.0, 1: 1.0}
    assert record.series("norm", "a").to_dict() == {0: 3.0, 1: 4.0}
    pivot = record.pivot("norm")
    assert list(pivot.columns) == ["b", "a"]  # the model's order
    assert pivot.to_numpy().tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert list(record.pivot("angle").columns) == ["b", "a"]
    assert record.metrics().query("quantity == 'angle'")["unit"].unique().tolist() == ["rad/step"]


def test_what_was_not_measured_is_refused_with_what_was(record):
    with pytest.raises(InputError, match=r"quantity = 'test_error' .* angle, loss, norm"):
        record.series("test_error")
    with pytest.raises(InputError, match=r"tensor = 'c' .* 'b', 'a'"):
        record.series("norm", "c")


def test_progress_is_the_latest_loss_and_never_reads_a_torn_line(record):
    assert record.progress() == (2, 1.0)
    with open(record.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "values": {"loss": {"": 0.')
    assert record.progress() == (2, 1.0)
    (record.path / "metrics.jsonl").write_text("")
    assert record.progress() is None
    (record.path / "metrics.jsonl").unlink()
    assert record.progress() is None


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_is_dropped(record, keep):
    file = record.path / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + json.dumps(LINES[0])[:keep])
    assert record.lines() == LINES


def test_a_torn_line_elsewhere_is_an_error(record):
    file = record.path / "metrics.jsonl"
    file.write_text('{"step": 0, "val\n' + file.read_text())
    with pytest.raises(InputError, match="is damaged: line 1 of 5"):
        record.lines()


def test_status_goes_by_the_files(tmp_path):
    record = Record(tmp_path / "run")
    assert record.status == "new"
    assert record.metrics().empty
    record.path.mkdir()
    for name, status in (("config.json", "partial"), ("metrics.parquet", "finished"), ("divergence.json", "diverged")):
        (record.path / name).touch()
        assert record.status == status


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a run directory: it has no config\.json"):
        _ = Record(tmp_path).config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        _ = Record(tmp_path).config
