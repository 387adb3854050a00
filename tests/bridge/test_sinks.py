"""Every sink holds the numbers of the run directory, and leaves the training script's own runs alone."""

import sys

import pandas as pd
import pytest
import torch
from torch import nn

from bridge.sinks import SINKS, MLflow, Sink, WandB, sinks_of
from bridge.watch import watch
from theory.errors import InputError


def run(tmp_path, sink):
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with watch(model, optimizer, root=tmp_path, sinks=[sink], every=2, flush_every=3, name="sunk") as w:
        for _ in range(8):
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.log(loss=loss)
    assert not w.notes
    return w.record


def test_csv_is_the_table_of_the_record(tmp_path):
    record = run(tmp_path, "csv")
    written = pd.read_csv(record.path / "metrics.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(written, record.metrics(), check_dtype=False)
    assert len(written) > 40


def test_tensorboard_files_hold_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = run(tmp_path, "tensorboard")
    events = EventAccumulator(str(record.path / "tensorboard"))
    events.Reload()
    for tag, series in {"angle/weight": record.series("angle", "weight"), "loss": record.series("loss")}.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == series.index.tolist()
        assert [event.value for event in found] == pytest.approx(series.tolist(), rel=1e-6)  # stored as float32


def test_wandb_offline_writes_a_run_of_its_own(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own = wandb.init(project="mine", mode="offline", dir=str(tmp_path))
    record = run(tmp_path, WandB(mode="offline"))
    assert wandb.run is own
    own.log({"x": 1})
    own.finish()
    assert list((record.path / "wandb").glob("offline-run-*/*.wandb"))


def test_mlflow_holds_the_numbers_beside_the_active_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    record = run(tmp_path, MLflow(tracking_uri=uri))
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("decaylab").experiment_id])
    assert found.info.run_name == record.name
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer"] == "AdamW"
    history = client.get_metric_history(found.info.run_id, "angle/weight")
    series = record.series("angle", "weight")
    assert {metric.step: metric.value for metric in history} == series.to_dict()


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_library_is_a_sentence_that_names_the_extra(name, package, monkeypatch):
    for module in [package, *(loaded for loaded in sys.modules if loaded.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed, whether it is or not
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=f"is not installed: install decaylab with the '{name}' extra"):
        sinks_of(name)


def test_three_methods_make_a_sink():
    class Mine:
        def open(self, path, config): ...
        def write(self, step, values): ...
        def close(self): ...

    assert isinstance(Mine(), Sink)
    assert sinks_of([Mine()])
    assert set(SINKS) == {"csv", "tensorboard", "wandb", "mlflow"}
    with pytest.raises(InputError, match="must be csv, tensorboard, wandb, mlflow, or have open, write and close"):
        sinks_of([object()])
