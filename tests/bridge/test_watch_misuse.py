"""Bad input gets one sentence; whatever goes wrong later ends the watch, never the training."""

import gc
import importlib
import logging
import subprocess
import sys

import pytest
import torch
from torch import nn

from bridge import watch_session
from bridge.watch import watch
from empirics.records import Record
from theory.errors import InputError
from theory.schedules import Cosine

# torch deletes the name torch.optim.optimizer, not the module
optimizers = importlib.import_module("torch.optim.optimizer")


@pytest.fixture
def pair():
    model = nn.Linear(4, 4, bias=False)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def step(model, optimizer):
    model.weight.grad = torch.randn(4, 4)
    optimizer.step()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"every": 0}, "every = 0"),
        ({"total_steps": 0}, "total_steps = 0"),
        ({"total_steps": 5, "start": 5}, "total_steps = 5"),
        ({"schedule": Cosine()}, "total_steps is missing"),
        ({"schedule": "cosine", "total_steps": 5}, "schedule = 'cosine'"),
        ({"schedule": Cosine(warmup=9), "total_steps": 5}, "warmup = 9"),
        ({"spec": "adamw"}, "spec = 'adamw'"),
        ({"sinks": "excel"}, "sinks = 'excel'"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(settings, sentence, pair, tmp_path):
    with pytest.raises(InputError, match=sentence):
        watch(*pair, root=tmp_path, **settings)
    assert not list(tmp_path.iterdir())
    assert not pair[1]._optimizer_step_pre_hooks


def test_a_model_that_the_optimizer_does_not_hold(pair, tmp_path):
    with pytest.raises(InputError, match="holds none of the model's trainable parameters"):
        watch(nn.Linear(4, 4), pair[1], root=tmp_path)
    with pytest.raises(InputError, match=r"optimizer = 'list'.* one watch each"):
        watch(pair[0], [pair[1]], root=tmp_path)
    with pytest.raises(InputError, match="model = 'function'"):
        watch(lambda x: x, pair[1], root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_parameter_is_watched_once(pair, tmp_path):
    model, optimizer = pair
    first = watch(model, optimizer, root=tmp_path)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="parameter 'weight' is watched already"):
        watch(model, second, root=tmp_path)
    first.close()
    watch(model, second, root=tmp_path).close()


def test_a_second_optimizer_over_a_parameter_is_noticed(pair, tmp_path, caplog):
    model, optimizer = pair
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    stranger = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with caplog.at_level(logging.WARNING, "decaylab"), watch(model, optimizer, root=tmp_path) as w:
        step(model, optimizer)
        stranger.step()
        assert not w.notes
        for _ in range(3):
            other.step()
    assert len(w.notes) == 1
    assert "'weight' among them, are also moved by another optimizer (SGD)" in caplog.text
    assert w.table()["note"].tolist() == ["SGD moves it, too"]


def test_closing_twice_and_logging_after_closing_do_nothing(pair, tmp_path):
    model, optimizer = pair
    before = len(optimizers._global_optimizer_post_hooks)
    w = watch(model, optimizer, root=tmp_path)
    step(model, optimizer)
    w.close()
    written = (w.path / "metrics.parquet").read_bytes()
    w.close()
    w.log(loss=1.0)
    step(model, optimizer)
    w.flush()
    assert (w.path / "metrics.parquet").read_bytes() == written
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert len(optimizers._global_optimizer_post_hooks) == before
    assert len(w.table()) == 1


def test_before_the_first_step(pair, tmp_path):
    with watch(*pair, root=tmp_path) as w:
        assert w.table().empty
        with pytest.raises(InputError, match="Nothing was measured yet"):
            w.comparison()
    assert w.record.status == "partial"
    assert w.record.error == "It ended before its first step."


def test_a_run_that_ended_early_says_so_and_is_compared_as_far_as_it_went(pair, tmp_path):
    model, optimizer = pair
    w = watch(model, optimizer, total_steps=100, root=tmp_path)

    def interrupted():
        with w:
            for _ in range(25):
                step(model, optimizer)
            raise KeyError("no such batch")

    with pytest.raises(KeyError):
        interrupted()
    assert w.record.status == "partial"
    assert "KeyError" in w.record.error
    assert w.comparison().windows["stop"].max() == 21
    with watch(model, optimizer, total_steps=100, root=tmp_path) as w:
        step(model, optimizer)
    assert w.record.error == "It ended after 1 of 100 steps."


def test_numbers_that_are_none_are_ignored(pair, tmp_path):
    with watch(*pair, root=tmp_path) as w:
        step(*pair)
        w.log(loss=torch.ones(2))
        w.log(loss="low")
    assert w.notes[-1] == "log(loss=...) was ignored: it must be one number."
    assert "loss" not in set(w.record.metrics()["quantity"])


class Broken:
    """A sink that fails, in open, write or close."""

    def __init__(self, where):
        self.where = where

    def open(self, path, config):
        self._fail("open")

    def write(self, step, values):
        self._fail("write")

    def close(self):
        self._fail("close")

    def _fail(self, where):
        if where == self.where:
            raise OSError(f"{where} failed")


@pytest.mark.parametrize("where", ["write", "close"])
def test_a_sink_that_fails_is_dropped(where, pair, tmp_path, caplog):
    model, optimizer = pair
    with watch(model, optimizer, root=tmp_path, sinks=[Broken(where)], flush_every=1, every=1) as w:
        for _ in range(3):
            step(model, optimizer)
    assert f"Broken was dropped, training goes on: {where} failed" in caplog.text
    assert w.record.status == "finished"
    assert len(w.record.series("norm", "weight")) == 3


def test_a_sink_that_cannot_be_opened_is_an_error_before_step_0(pair, tmp_path):
    with pytest.raises(OSError, match="open failed"):
        watch(*pair, root=tmp_path, sinks=[Broken("open")])
    watch(*pair, root=tmp_path).close()  # nothing is locked, nothing is held


def test_an_error_inside_the_watch_ends_it_and_training_goes_on(pair, tmp_path, caplog, monkeypatch):
    model, optimizer = pair
    w = watch(model, optimizer, root=tmp_path, every=1, flush_every=2)

    def full(*_, **__):
        raise OSError("The disk is full")

    monkeypatch.setattr(w._files.run, "append", full)
    for _ in range(5):
        step(model, optimizer)
    assert "The watch ended, training goes on: OSError: The disk is full" in caplog.text
    assert "disk is full" in w.record.error
    w.close()
    assert not optimizer._optimizer_step_pre_hooks
    watch(model, optimizer, root=tmp_path).close()


def test_a_watch_that_nobody_holds_does_not_keep_the_model_alive(tmp_path):
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    before = len(optimizers._global_optimizer_post_hooks)
    watch(model, optimizer, root=tmp_path)
    assert len(watch_session._open) >= 1
    del model, optimizer
    gc.collect()
    assert len(optimizers._global_optimizer_post_hooks) == before


SCRIPT = """
import torch, sys
import decaylab as dl
model = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
w = dl.watch(model, optimizer, root=sys.argv[1])
for _ in range(30):
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.parametrize("ending", ["", "raise KeyError('no such batch')"])
def test_a_script_that_forgets_to_close_loses_nothing(ending, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT + ending)
    done = subprocess.run(
        [sys.executable, "script.py", str(tmp_path / "runs")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == (1 if ending else 0), done.stderr
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith("script-")
    record = Record(path)
    assert record.series("norm", "weight").index.tolist() == [0, 10, 20]
    assert record.status == ("partial" if ending else "finished")
    assert record.error == ("KeyError: 'no such batch'" if ending else None)
    assert (path / "source.txt").read_text() == SCRIPT + ending
    assert not (path / "lock").exists()
