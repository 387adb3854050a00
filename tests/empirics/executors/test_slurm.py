import sys
from dataclasses import replace

import pytest

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.executors import Slurm
from empirics.models import ResNetConfig
from empirics.sweep import sweep
from theory.errors import InputError
from theory.optimizers import SGD

BASE = TrainConfig(
    name="a", model=ResNetConfig(width=2), data=ImageData(train=64), optimizer=SGD(lr=0.1), steps=6, batch_size=16
)


def test_without_submitit_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="executor = 'slurm' needs the package submitit"):
        sweep([BASE], tmp_path, executor="slurm")


def test_jobs_train_fail_and_are_refused_for_unknown_options(tmp_path):
    """submitit's own stand-in for Slurm: the same jobs as processes of this machine."""
    pytest.importorskip("submitit", reason="needs the package submitit: pip install 'decaylab[slurm]'")
    failing = replace(BASE, name="b", data=ImageData(source=f"parquet:{tmp_path}/nowhere"))
    (fine,) = sweep([BASE], tmp_path / "runs", executor=Slurm("local", {"timeout_min": 5}))
    assert fine.status == "finished"
    found = sweep([BASE, failing], tmp_path / "runs", executor=Slurm("debug"))  # in this process
    assert found.table()["status"].tolist() == ["finished", "failed"]
    assert "nowhere" in found.records[1].error
    assert list((tmp_path / "runs" / ".slurm").iterdir())
    with pytest.raises(InputError, match=r"executor = 'slurm' cannot submit: .*no_such"):
        sweep([replace(BASE, seed=1)], tmp_path / "runs", executor=Slurm("local", {"no_such": 5}))
