import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from empirics import sweep
from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.interrupt import Interrupted
from empirics.models import ResNetConfig
from empirics.sweep import run_all
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
        self.ended, self.seen = {}, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, *args):
        self.seen.append(args)

    def close(self, name, text):
        self.ended[name] = text


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

    monkeypatch.setattr(sweep, "start", None)  # nothing is started a second time
    lines = Lines()
    run_all(configs[1:], tmp_path / "runs", display=lines)
    assert lines.ended == {fine.directory: "finished before", diverging.directory: "diverged before"}


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
    assert list(tmp_path.iterdir()) == []
