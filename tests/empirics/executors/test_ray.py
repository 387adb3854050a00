import json
import os
import signal
import sys
import threading
import time

import pytest

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.executors import Ray
from empirics.interrupt import Interrupted
from empirics.models import ResNetConfig
from empirics.sweep import sweep
from theory.errors import InputError
from theory.optimizers import SGD


def configs(steps, *lrs):
    model, data = ResNetConfig(width=2), ImageData(train=64)
    return [
        TrainConfig(
            name=f"lr{lr:g}",
            model=model,
            data=data,
            optimizer=SGD(lr=lr),
            steps=steps,
            batch_size=16,
            flush_every=20,
            checkpoint_every=40,
        )
        for lr in lrs
    ]


def test_without_ray_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="executor = 'ray' needs the package ray"):
        sweep(configs(4, 0.1), tmp_path, executor="ray")
    assert not any(tmp_path.iterdir())


def test_a_killed_workers_run_is_taken_up_again_and_a_stopped_sweep_saves(tmp_path):
    """One Ray of two cores for both, as it takes seconds to start."""
    pytest.importorskip("ray", reason="needs the package ray: pip install 'decaylab[ray]'")
    where = Ray(workers=2)
    victim, diverging = configs(300, 0.1, 1e30)
    killed = []

    def kill():
        path = tmp_path / victim.directory
        while not list(path.glob("checkpoints/step-*")):
            time.sleep(0.05)
        killed.append(json.loads((path / "lock").read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with where:  # started once, for both sweeps
        found = sweep([victim, diverging], tmp_path, executor=where)
        assert killed
        assert [record.status for record in found] == ["finished", "diverged"]
        assert found.records[0].series("loss").index.tolist() == list(range(300))
        assert found.table()["step"].tolist()[0] == 300

        long = configs(1_000_000, 0.3, 0.4, 0.5)  # two run, one waits

        def press():
            while sum((tmp_path / config.directory / "metrics.jsonl").exists() for config in long) < 2:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        with pytest.raises(Interrupted, match="3 of 3 runs are left"):
            sweep(long, tmp_path, executor=where)
    saved = [len(list((tmp_path / config.directory).glob("checkpoints/step-*"))) > 0 for config in long]
    assert sorted(saved) == [False, True, True]
    assert not any((tmp_path / config.directory / "error.txt").exists() for config in long)
