import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.executors import Job, Local
from empirics.interrupt import Interrupted
from empirics.lock import Lock
from empirics.models import ResNetConfig
from empirics.sweep import Sweep, outcome, run_all, sweep
from theory.errors import InputError
from theory.optimizers import SGD
from theory.serialize import to_json

BASE = TrainConfig(
    name="a", model=ResNetConfig(width=2), data=ImageData(train=64), optimizer=SGD(lr=0.1), steps=6, batch_size=16
)
PREDICT = """
import pandas as pd
from theory.recipe import Group, Recipe
class Expected:
    def __init__(self, config):
        self.recipe = Recipe(config.optimizer, config.schedule, config.steps, (Group("w", (2,)),))
    def table(self):
        return pd.DataFrame({"step": [0], "value": [1.0]})
def predict(model, optimizer, config):
    return Expected(config)
"""


class Lines:
    """Stands in for a display and keeps what it is told."""

    def __init__(self):
        self.ended, self.seen, self.over = {}, [], None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, *args):
        self.seen.append(args)

    def close(self, name, text):
        self.ended[name] = text

    def overall(self, done, runs, failed):
        self.over = done, runs, failed


def test_finished_runs_are_skipped_failures_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "expecting.py").write_text(PREDICT)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    from expecting import predict  # pyright: ignore[reportMissingImports]

    fine, diverging = BASE, replace(BASE, name="b", optimizer=SGD(lr=1e30))
    failing = replace(BASE, name="c", data=ImageData(source=f"parquet:{tmp_path}/nowhere"))
    lines = Lines()
    configs = [failing, fine, diverging]
    records = run_all(configs, tmp_path / "runs", workers=2, predict=predict, display=lines)
    assert [record.status for record in records] == ["new", "finished", "diverged"]
    assert records[1].preregistered
    assert records[1].recipe.steps == 6
    assert "nowhere" in records[0].error
    assert records[0].error.startswith("failed with exit code 1: ")
    assert lines.ended[failing.directory] == records[0].error
    assert lines.ended[fine.directory] == "finished"
    assert lines.over == (3, 3, 2)

    run_all([failing], tmp_path / "runs", display=Lines())  # tried again
    assert (records[0].path / "log.txt").read_text().count("nowhere") == 2

    monkeypatch.setattr(Local, "start", None)  # nothing is started a second time
    lines = Lines()
    found = sweep(configs, tmp_path / "runs", display=lines)
    assert lines.ended.pop(failing.directory) == f"{records[0].error} (before; --retry failed runs it again)"
    assert lines.ended == {fine.directory: "finished before", diverging.directory: "diverged before"}
    table = found.table().set_index("run")
    assert table["status"].to_dict() == {
        failing.directory: "failed",
        fine.directory: "finished",
        diverging.directory: "diverged",
    }


def test_a_failed_run_is_tried_again_when_asked_for_and_the_table_is_told(tmp_path, monkeypatch):
    config = replace(BASE, data=ImageData(source=f"parquet:{tmp_path}/nowhere"))
    path = tmp_path / "runs" / config.directory
    path.mkdir(parents=True)
    (path / "error.txt").write_text("failed with exit code -9: out of memory")
    with monkeypatch.context() as patch:
        patch.setattr(Local, "start", None)
        (record,) = sweep([config], tmp_path / "runs", display=Lines())
    assert "out of memory" in record.error
    row = Sweep.open(tmp_path / "runs").table().iloc[0]
    assert (row["status"], row["step"], row["error"]) == ("failed", 0, record.error)
    (record,) = sweep([config], tmp_path / "runs", retry="failed", display=Lines())
    assert "nowhere" in record.error


def test_a_run_that_follows_another_of_the_sweep_waits_for_it(tmp_path):
    first = replace(BASE, name="first")
    match = replace(BASE, name="match", match=first.directory)
    tuned = replace(BASE, name="tuned", init_from=f"{match.directory}@6")
    alone = replace(BASE, name="alone", match="not-of-this-sweep")
    order = []

    class Fails:
        """An executor without a limit, whose runs fail at once."""

        width = None
        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None

        def start(self, job):
            order.append(f"{job.config.name} starts")
            job.record.path.mkdir(parents=True)
            return Ends(job.config.name)

    class Ends:
        def __init__(self, name):
            self.name = name

        def ended(self):
            order.append(f"{self.name} ends")
            return 1

    found = sweep([tuned, match, alone, first], tmp_path, executor=Fails(), display=Lines())
    events = ["alone starts", "first starts", "alone ends", "first ends", "match starts", "match ends", "tuned starts"]
    assert order == [*events, "tuned ends"]
    assert found.table()["status"].tolist() == ["failed"] * 4
    assert found.table()["match"].tolist() == ["", first.directory, "not-of-this-sweep", ""]


def test_a_run_that_another_process_trains_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("empirics.executors.job.PATIENCE", 0.1)
    job = Job(BASE, tmp_path)
    job.record.path.mkdir()
    lock = Lock(job.record.path)
    code = job.attempt()
    assert "is being written by" in capsys.readouterr().out
    (job.record.path / "log.txt").write_text("it is being written")
    assert outcome(job, code) == "left alone: it is being written"
    assert not (job.record.path / "error.txt").exists()
    lock.release()


def test_progress_is_read_from_the_run_directories(tmp_path):
    lines = Lines()
    config = replace(BASE, steps=1000, flush_every=20, checkpoint_every=0)
    run_all([config], tmp_path, display=lines)
    assert lines.ended == {config.directory: "finished"}
    steps = [done for _, done, _, _ in lines.seen]
    assert steps == sorted(steps)
    assert any(0 < done < 1000 for done in steps)
    assert {total for _, _, total, _ in lines.seen} == {1000}


def test_an_interrupted_sweep_saves_every_run_and_leaves_no_process(tmp_path):
    configs = [replace(BASE, name=name, steps=1_000_000, flush_every=10) for name in "ab"]

    def press():
        while not all((tmp_path / config.directory / "metrics.jsonl").exists() for config in configs):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(Interrupted, match="2 of 2 runs are left: the same command continues it"):
        run_all(configs, tmp_path, workers=2, display=Lines())
    for config in configs:
        path = tmp_path / config.directory
        assert len(list((path / "checkpoints").glob("step-*"))) == 1
        assert "the same command continues it" in (path / "log.txt").read_text()
        assert not (path / "lock").exists()
    assert not [p for p in psutil.Process().children(recursive=True) if "empirics.sweep" in p.cmdline()]


KILLED = """
import sys
from pathlib import Path
from empirics.sweep import run_all
from theory.serialize import from_json
run_all([from_json(sys.argv[1])], Path(sys.argv[2]))
"""


def test_runs_of_a_killed_sweep_save_and_stop_and_the_next_sweep_continues_them(tmp_path):
    config = replace(BASE, steps=3_000, flush_every=10, checkpoint_every=0)
    path = tmp_path / config.directory
    sweep_process = subprocess.Popen([sys.executable, "-c", KILLED, to_json(config), str(tmp_path)])
    while not (path / "metrics.jsonl").exists():
        time.sleep(0.05)
    sweep_process.kill()
    sweep_process.wait()
    lines = Lines()
    (record,) = run_all([config], tmp_path, display=lines)  # at once: the orphan may still be saving
    assert record.status == "finished"
    assert "was stopped and saved" in (path / "log.txt").read_text()
    assert record.series("loss").index.tolist() == list(range(3_000))


def test_what_cannot_work_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match=f"{BASE.directory} more than once"):
        run_all([BASE, BASE], tmp_path)
    with pytest.raises(InputError, match="must be a function of an importable module"):
        run_all([BASE], tmp_path, predict=lambda model, optimizer, config: None)
    with pytest.raises(InputError, match="workers = 0"):
        run_all([BASE], tmp_path, workers=0)
    with pytest.raises(InputError, match=r"retry = 'all' .* failed, or left out"):
        sweep([BASE], tmp_path, retry="all")
    with pytest.raises(InputError, match=r"executor = 'pbs' .* one of local, torchrun, ray, slurm"):
        sweep([BASE], tmp_path, executor="pbs")
    with pytest.raises(InputError, match=r"processes = 2 .* left out, as the executor local has workers"):
        sweep([BASE], tmp_path, processes=2)
    with pytest.raises(InputError, match="a folder that holds run directories"):
        Sweep.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
