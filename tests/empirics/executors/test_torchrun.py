import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.executors import Torchrun
from empirics.interrupt import Interrupted
from empirics.models import ResNetConfig
from empirics.records import Record
from empirics.sweep import sweep
from theory.optimizers import SGD

BASE = TrainConfig(
    name="a",
    model=ResNetConfig(width=2),
    data=ImageData(train=64),
    optimizer=SGD(lr=0.1),
    steps=1_000_000,
    batch_size=16,
    accumulate=2,
    flush_every=10,
)


def test_a_failure_keeps_its_own_reason_and_a_stop_reaches_both_processes_behind_torchrun(tmp_path):
    failing = replace(BASE, name="b", data=ImageData(source=f"parquet:{tmp_path}/nowhere"))
    path = tmp_path / BASE.directory

    def press():
        while not (path / "metrics.jsonl").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted, match="1 of 2 runs are left"):
        sweep([failing, BASE], tmp_path, executor=Torchrun(processes=2))
    assert "nowhere" in Record(tmp_path / failing.directory).error  # not torchrun's own summary, which ends the log
    assert "was stopped and saved" in (path / "log.txt").read_text()
    assert len(list((path / "checkpoints").glob("step-*"))) == 1
    assert Record(path).description["environment"]["processes"] == 2
