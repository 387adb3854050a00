import hashlib
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.models import GPT2Config, ResNetConfig
from empirics.records import Record
from empirics.replay import replay
from empirics.train import train
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.schedules import Piecewise


class HalfRange(TorchFunctionMode):
    """Linear maps overflow where float16 does: above 65504."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return torch.where(out.abs() > 65504, math.inf, out) if func is F.linear else out


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    rng = np.random.default_rng(0)
    for name, count in (("train", 6000), ("val", 600)):
        rng.integers(50, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return TrainConfig(
        name="gpt2",
        model=GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1),
        data=TextData(source=f"bin:{folder}", vocab_size=50, block_size=8, val_windows=16),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        steps=30,
        batch_size=4,
        grad_clip=0.5,
        flush_every=5,
        checkpoint_every=10,
        keep_checkpoints=9,
    )


@pytest.fixture(scope="module")
def healthy(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("healthy"), device="cpu")


@pytest.fixture(scope="module")
def overflowing(config, tmp_path_factory):
    """Weights grow by 1 a step, activations beyond float16 after some ten steps: in float32 all is finite."""
    growing = replace(config, optimizer=AdamW(lr=1.0, weight_decay=0.0), grad_clip=0.0, checkpoint_every=5)
    with HalfRange():
        record = train(growing, tmp_path_factory.mktemp("overflowing"), device="cpu")
    assert record.status == "diverged"
    return record


def contents(record: Record) -> dict[str, tuple[str, int]]:
    files = [file for file in sorted(record.path.rglob("*")) if file.is_file()]
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


def test_same_arithmetic_from_a_checkpoint_is_the_recorded_run_to_the_bit(healthy):
    recorded = healthy.series("loss")
    for from_step, start in ((0, 0), (9, 0), (10, 10), (25, 20), (29, 20)):
        found = replay(healthy, from_step=from_step, device="cpu")
        assert found.steps == tuple(range(start, 30))
        assert found.control == found.replayed == found.original == tuple(recorded.iloc[start:])
        assert found.verdict == "no divergence"
        assert "at most 0 nats" in found.sentence


def test_overflow_of_a_narrow_format_is_blamed_on_precision(overflowing):
    step = overflowing.divergence["step"]
    found = replay(overflowing.path, recorded=HalfRange, beyond=4, device="cpu")
    assert found.verdict == "precision"
    assert found.steps == tuple(range(5 * (step // 5), step + 5))
    at = found.steps.index(step)
    assert not math.isfinite(found.control[at])
    assert found.control[:at] == found.original[:at]
    assert np.isfinite(found.replayed).all()
    assert found.trigger is None
    assert "stay finite (it is too early to tell spikes from descent)" in found.sentence
    assert found.sentence.endswith("precision was the cause.")


def test_the_same_narrow_format_again_is_not_precision(overflowing):
    found = replay(overflowing, precision=HalfRange, recorded=HalfRange, device="cpu")
    assert found.verdict == "not precision"
    assert found.trigger.startswith(f"step {overflowing.divergence['step']}: loss is")


def test_without_the_control_nothing_could_be_said(overflowing):
    found = replay(overflowing, beyond=0, device="cpu")
    assert found.verdict == "not reproduced"
    assert found.control == found.replayed
    assert "stays open" in found.sentence


@pytest.mark.parametrize("dtype", ["float32", "bf16", "float64"])
def test_a_learning_rate_beyond_every_format_is_not_precision(config, tmp_path, dtype):
    wild = replace(config, optimizer=AdamW(lr=1e200, weight_decay=0.0), grad_clip=0.0)
    record = train(wild, tmp_path, device="cpu")
    found = replay(record, dtype=dtype, device="cpu")
    assert found.verdict == "not precision"
    assert found.dtype == dtype


def test_a_divergence_that_is_only_late_is_found_beyond(overflowing):
    """A range twice as wide only delays the overflow."""

    class Wider(HalfRange):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            return torch.where(out.abs() > 2 * 65504, math.inf, out) if func is F.linear else out

    short = replay(overflowing, precision=Wider, recorded=HalfRange, beyond=0, device="cpu")
    long = replay(overflowing, precision=Wider, recorded=HalfRange, device="cpu")
    assert (short.verdict, long.verdict) == ("precision", "not precision")
    assert math.isfinite(long.replayed[long.steps.index(overflowing.divergence["step"])])


def test_wider_and_narrower_arithmetic_differ_as_their_resolution(healthy):
    apart = {}
    for dtype in ("float64", "bf16"):
        found = replay(healthy, dtype=dtype, from_step=20, to_step=20, device="cpu")
        apart[dtype] = abs(found.replayed[0] - found.control[0])
    assert 0 < apart["float64"] < 1e-5  # float32's unit roundoff 6e-8, times a loss of 4, times depth
    assert 1e-5 < apart["bf16"] < 0.05  # bfloat16's is 4e-3


def test_images_in_float64(tmp_path):
    config = TrainConfig(
        name="resnet",
        model=ResNetConfig(width=2),
        data=ImageData(train=100),
        optimizer=SGD(lr=0.1, momentum=0.9),
        steps=6,
        batch_size=16,
        checkpoint_every=4,
    )
    record = train(config, tmp_path, device="cpu")
    found = replay(record, dtype="float64", from_step=4, device="cpu")
    assert found.steps == (4, 5)
    assert found.replayed == pytest.approx(found.original, rel=1e-4)
    assert found.control == found.original


def test_a_spike_that_was_not_stopped_counts(config, tmp_path):
    """The learning rate jumps a thousandfold, and with it the loss, in any arithmetic."""
    jump = Piecewise(knots=((0, 0.001), (20, 1.0)))
    record = train(replace(config, schedule=jump, optimizer=AdamW(lr=3.0)), tmp_path, device="cpu")
    assert record.status == "finished"
    found = replay(record, dtype="float64", from_step=10, window=16, device="cpu")
    assert found.verdict == "not precision"
    assert "robust standard deviations" in found.trigger


def test_a_spike_that_a_narrow_format_turns_into_nan_is_not_blamed_on_it(config, tmp_path):
    jump = Piecewise(knots=((0, 0.001), (20, 1.0)))
    with HalfRange():
        record = train(replace(config, schedule=jump, optimizer=AdamW(lr=30.0)), tmp_path, device="cpu")
    assert record.status == "diverged"
    found = replay(record, recorded=HalfRange, window=16, device="cpu")
    assert found.verdict == "not precision"
    assert "though all stays finite" in found.sentence
    assert "robust standard deviations" in found.trigger


def test_losses_recorded_now_and_then(config, tmp_path):
    record = train(replace(config, loss_every=4), tmp_path, device="cpu")
    found = replay(record, from_step=20, device="cpu")
    recorded = {step: loss for step, loss in zip(found.steps, found.original, strict=True) if not math.isnan(loss)}
    assert list(recorded) == [20, 24, 28, 29]
    assert all(found.control[found.steps.index(step)] == loss for step, loss in recorded.items())
    assert found.verdict == "no divergence"


def test_leaves_directory_random_numbers_and_threads_alone(overflowing):
    before = contents(overflowing)
    torch.manual_seed(5)
    random.seed(5)
    state, python, threads = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    replay(overflowing, device="cpu")
    assert contents(overflowing) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert torch.get_num_threads() == threads


def test_a_damaged_checkpoint_is_passed_over(config, tmp_path):
    record = train(config, tmp_path, device="cpu")
    newest = checkpoint.checkpoints(record.path / "checkpoints")[-2]
    assert newest.name == "step-00000020"
    (newest / "model.safetensors").write_bytes(b"torn")
    assert replay(record, from_step=25, device="cpu").steps[0] == 10
    assert newest.exists()


def test_what_cannot_be_replayed_says_so(healthy, tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        replay(tmp_path)
    with pytest.raises(InputError, match="dtype = 'fp8'"):
        replay(healthy, dtype="fp8")
    with pytest.raises(InputError, match=r"from_step = 30 .* 0 \.\. 29"):
        replay(healthy, from_step=30)
