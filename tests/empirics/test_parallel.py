"""One run in two processes: the numbers of one process, checkpoints for any number of them, and nothing that hangs.

Tolerances: the same float32 terms are summed in another order, which moves a mean by a few units in the last place,
6e-8; twenty steps of AdamW carry that on. Angles are differences of weights, some hundred times smaller than these.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from empirics import checkpoint, parallel
from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.files import DiskFullError
from empirics.interrupt import Interrupted
from empirics.models import GPT2Config, ResNetConfig
from empirics.plan import Probes
from empirics.ranks import Ranks
from empirics.records import Record
from empirics.train import train
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Lion, Muon, NormalizedMomentum, Signum
from theory.schedules import Cosine
from theory.serialize import to_json

WORKER = Path(__file__).with_name("parallel_worker.py")
CLOSE = {"angle": 1e-4, "relative_update": 1e-4, "effective_lr": 1e-5, "norm": 1e-5, "loss": 1e-5, "val_loss": 1e-5}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    rng = np.random.default_rng(0)
    for name, count in (("train", 6000), ("val", 600)):
        rng.integers(50, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return folder


@pytest.fixture(scope="module")
def gpt2(tokens):
    return TrainConfig(
        name="gpt2",
        model=GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16),
        data=TextData(source=f"bin:{tokens}", vocab_size=50, block_size=8, val_windows=17),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        schedule=Cosine(warmup=5, final=0.1),
        steps=20,
        batch_size=8,
        grad_clip=0.65,
        averages=("ema:5",),
        rotation_every=3,
        flush_every=7,
        checkpoint_every=8,
        eval_every=10,
    )


@pytest.fixture(scope="module")
def resnet():
    return TrainConfig(
        name="resnet",
        model=ResNetConfig(width=2),
        data=ImageData(train=100),
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
        steps=6,
        batch_size=16,
        accumulate=2,
        rotation_every=1,
    )


def launched(folder: Path, tasks: list[dict], name: str, *, torchrun: bool) -> subprocess.CompletedProcess[str]:
    """Two processes that do the tasks, by torchrun or with its environment variables alone, which is quicker."""
    (folder / name).write_text(
        json.dumps([t | {"config": to_json(t["config"])} if "config" in t else t for t in tasks])
    )
    command = [str(WORKER), str(folder), name]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    if torchrun:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
        return subprocess.run(run, env=env, capture_output=True, text=True, timeout=180, check=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    run = [sys.executable, *command]
    other = subprocess.Popen(run, env={**env, "RANK": "1"}, stderr=subprocess.PIPE, text=True)
    first = subprocess.run(run, env={**env, "RANK": "0"}, capture_output=True, text=True, timeout=180, check=False)
    first.stderr += other.communicate(timeout=60)[1]
    return first


@pytest.fixture(scope="module")
def two(gpt2, resnet, tmp_path_factory):
    """A folder of runs, made by two processes that torchrun started, once for all tests."""
    folder = tmp_path_factory.mktemp("two")
    half = folder / "half"  # one process stops; two go on
    with pytest.raises(Interrupted):
        train(gpt2, half, progress=lambda done, *_: os.kill(os.getpid(), 15) if done == 7 else None)
    accumulated = replace(gpt2, accumulate=4)
    tasks = [
        {"root": "ddp", "parallel": "auto", "config": gpt2},
        {"root": "fsdp", "parallel": "fsdp", "config": gpt2},
        {"root": "ddp", "parallel": "ddp", "config": accumulated},
        {"root": "fsdp", "parallel": "fsdp", "config": accumulated},
        {"root": "images", "parallel": "ddp", "config": resnet},
        {"root": "stopped", "parallel": "fsdp", "config": gpt2, "at": 9, "what": "signal"},
        {"copy": ["stopped", "alone"]},
        {"copy": ["stopped", "replicas"]},
        {"root": "stopped", "parallel": "fsdp", "config": gpt2},
        {"root": "replicas", "parallel": "ddp", "config": gpt2},
        {"root": "half", "parallel": "fsdp", "config": gpt2},
        *({"root": "optimizers", "parallel": "fsdp", "config": small} for small in others(gpt2)),
        {"root": "wild", "parallel": "fsdp", "config": wild(gpt2)},
        {"root": "failed", "parallel": "ddp", "config": gpt2, "at": 11, "what": "error"},
    ]
    done = launched(folder, tasks, "tasks.json", torchrun=True)
    assert (folder / "failed.0.txt").exists(), done.stderr
    return folder, done


def wild(gpt2):
    """A run that diverges within two steps."""
    return replace(gpt2, name="wild", optimizer=SGD(lr=1e30), grad_clip=0.0, averages=())


def others(gpt2):
    """Short runs of other optimizers."""
    small = replace(gpt2, steps=6, eval_every=0, averages=())
    rates = (SGD(lr=0.5, momentum=0.9), Lion(lr=1e-3), Signum(lr=1e-3), NormalizedMomentum(lr=1e-2))
    return [replace(small, name=type(optimizer).__name__, optimizer=optimizer) for optimizer in rates]


@pytest.fixture(scope="module")
def one(gpt2, resnet, tmp_path_factory):
    """The same configurations in this process alone."""
    folder = tmp_path_factory.mktemp("one")
    configs = [gpt2, replace(gpt2, accumulate=4), resnet, wild(gpt2), *others(gpt2)]
    return {config.hash: train(config, folder) for config in configs}


PARTS = {"attention_logit_max", "branch_lost", "branch_ratio", "residual_rms"}  # of a process's own first part


def same(found: Record, expected: Record, *, but: Collection[str] = ()) -> None:
    """Everything that was recorded, step by step and tensor by tensor."""
    assert found.status == "finished"
    assert found.name == expected.name
    assert set(found.metrics()["quantity"]) == set(expected.metrics()["quantity"])
    for quantity in sorted(set(expected.metrics()["quantity"]) - set(but)):
        a, b = found.pivot(quantity), expected.pivot(quantity)
        assert a.columns.equals(b.columns)
        np.testing.assert_allclose(a, b, rtol=CLOSE.get(quantity, 1e-5), atol=0, err_msg=quantity)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_log_the_numbers_of_one(kind, accumulate, two, one, gpt2):
    config = replace(gpt2, accumulate=accumulate)
    found, expected = Record(two[0] / kind / config.directory), one[config.hash]
    held = set(expected.metrics()["quantity"])
    assert {"loss", "norm", "angle", "grad_norm_total", "clipped_fraction", "val_loss", "val_loss_average"} <= held
    assert 0 < expected.series("clipped_fraction").iloc[-1] < 1
    same(found, expected, but=PARTS if accumulate == 1 else ())
    environment = found.description["environment"]
    assert (environment["parallel"], environment["processes"]) == (kind, 2)


@pytest.mark.slow
def test_images_with_batchnorm_too(two, one, resnet):
    same(Record(two[0] / "images" / resnet.directory), one[resnet.hash])


@pytest.mark.slow
def test_divergence_ends_both_with_the_state_of_whole_tensors(two, one, gpt2):
    config = wild(gpt2)
    found, expected = (r.divergence or {} for r in (Record(two[0] / "wild" / config.directory), one[config.hash]))
    assert (found["step"], found["kind"]) == (expected["step"], "not finite")
    counts = [{n: t["not_finite"] for n, t in x["tensors"].items()} for x in (found, expected)]
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > 0
    assert (two[0] / "wild.1.txt").read_text() == "finished\n"


@pytest.mark.slow
def test_every_optimizer_that_is_allowed_on_shards(two, one, gpt2):
    small = others(gpt2)
    assert {type(config.optimizer) for config in small} | {AdamW, Adam} == set(parallel.SHARDED)
    for config in small:
        same(Record(two[0] / "optimizers" / config.directory), one[config.hash], but=PARTS)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_with_one_checkpoint(two, gpt2):
    said = [(two[0] / f"stopped.{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert said[0][0] == f"Interrupted: {two[0] / 'stopped' / gpt2.directory} was stopped and saved after 11 of 20 " + (
        "steps: the same command continues it."
    )
    assert said[1][0] == "Interrupted: "
    assert [lines[1] for lines in said] == ["finished"] * 2
    saved = checkpoint.checkpoints(two[0] / "alone" / gpt2.directory / "checkpoints")[-1]
    assert saved.name == "step-00000011"
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "state.pt"} < {file.name for file in saved.iterdir()}


@pytest.mark.slow
def test_shards_of_two_processes_go_on_in_two_in_one_and_in_replicas(two, one, gpt2):
    went_on = Record(two[0] / "stopped" / gpt2.directory)
    # sums of two numbers do not depend on their order: to the bit
    straight = Record(two[0] / "fsdp" / gpt2.directory)
    assert (went_on.path / "metrics.parquet").read_bytes() == (straight.path / "metrics.parquet").read_bytes()
    same(Record(two[0] / "replicas" / gpt2.directory), straight)
    same(train(gpt2, two[0] / "alone"), one[gpt2.hash], but=PARTS)
    weights = [gpt2.model.build(seed=9).state_dict() for _ in range(2)]
    for record, held in zip((straight, one[gpt2.hash]), weights, strict=True):
        model = gpt2.model.build(seed=9)
        assert checkpoint.load(checkpoint.checkpoints(record.path / "checkpoints")[-1], model=model) == gpt2.steps
        held.update(model.state_dict())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_the_shards_of_two(two, one, gpt2):
    same(Record(two[0] / "half" / gpt2.directory), one[gpt2.hash], but=PARTS)


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_with_its_message(two, one, gpt2):
    folder, done = two
    assert done.returncode == 1
    sentence = "process 1 of 2 failed: ValueError: this step is cursed"
    assert (folder / "failed.1.txt").read_text() == "ValueError: this step is cursed\n"
    assert (folder / "failed.0.txt").read_text() == f"OtherProcessError: {sentence}\n"
    assert sentence in done.stderr
    same(train(gpt2, folder / "failed"), one[gpt2.hash], but=PARTS)  # from its checkpoint after step 8


@pytest.mark.slow
def test_killed_while_saving_shards_the_checkpoint_before_is_whole(one, gpt2, tmp_path):
    tasks = [{"root": "runs", "parallel": "fsdp", "config": gpt2, "at": 16, "what": "die_in_save"}]
    done = launched(tmp_path, tasks, "tasks.json", torchrun=False)
    assert done.returncode == -9
    silent = "OtherProcessError: another process than 1 of 2 ended without a word: it may have been killed\n"
    assert (tmp_path / "runs.1.txt").read_text() == silent
    saved = tmp_path / "runs" / gpt2.directory / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == [".step-00000016.tmp", "step-00000008"]
    damaged = tmp_path / "damaged"
    shutil.copytree(tmp_path / "runs", damaged)
    same(train(gpt2, tmp_path / "runs"), one[gpt2.hash], but=PARTS)
    assert not (saved / ".step-00000016.tmp").exists()
    (damaged / gpt2.directory / "checkpoints" / "step-00000008" / "__1_0.distcp").write_bytes(b"other")
    with pytest.warns(UserWarning, match=r"__1_0.distcp does not have the contents that were saved"):
        same(train(gpt2, damaged), one[gpt2.hash])  # from the start


def test_a_disk_that_fills_under_the_shards_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    ranks, shard = Ranks("fsdp"), cast(Any, torch.ones(4))
    shard.full_tensor = shard.clone  # what tells a DTensor from a tensor
    checkpoint.sharded.save(tmp_path, 1, {"model": {"w": shard}}, ranks)
    full = lambda: (tmp_path / ".step-00000002.tmp" / "__0_0.distcp").symlink_to("/dev/full")
    monkeypatch.setattr(ranks, "wait", full)
    with pytest.raises(DiskFullError, match=r"The disk is full: .*step-00000002 could not be written"):
        checkpoint.sharded.save(tmp_path, 2, {"model": {"w": shard}}, ranks)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.sharded.load(tmp_path / "step-00000001")["model"]["w"].tolist() == [1.0] * 4


def test_ranks_in_order_have_the_parts_of_one_process(gpt2):
    data = gpt2.data.open()
    for accumulate, world in ((1, 2), (4, 2), (2, 4), (4, 1)):
        config = replace(gpt2, accumulate=accumulate)
        ranks = [Ranks("ddp", rank, world) for rank in range(world)]
        parts = [part for rank in ranks for part in parallel.micro_batches(rank, data, 3, config)]
        assert len(parts) == max(accumulate, world)
        for joined, whole in zip(zip(*parts, strict=True), data.batch(3, 8), strict=True):
            assert torch.equal(torch.cat(joined), whole)
            rows = [tuple(row) for row in whole.tolist()]
            assert len(set(rows)) == len(rows)  # so that no two ranks see the same


def test_each_process_has_random_numbers_of_its_own_again_the_same_when_resumed():
    def drawn(rank, step):
        parallel.reseed(Ranks("ddp", rank, 2), 7, step)
        return torch.rand(1).item()

    numbers = [drawn(rank, step) for step in (0, 1) for rank in (0, 1)]
    assert len(set(numbers)) == 4
    assert drawn(1, 1) == numbers[-1]


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("ddp", {"batch_size": 7}, "batch_size = 7 is not allowed: it must be a multiple of 2"),
        ("fsdp", {"optimizer": Muon(lr=0.01), "others": AdamW(lr=0.01)}, "optimizer = "),
        ("fsdp", {"precision": "fp16"}, "precision = 'fp16'"),
        ("fsdp", {"fixed_norm": 1.0}, "fixed_norm = 1.0"),
        ("fsdp", {"probes": Probes(signal=8)}, "probes.signal = 8"),
        ("ddp", {"precision": "emulated:m7e8:stochastic"}, "precision = 'emulated:m7e8:stochastic'"),
    ],
)
def test_what_cannot_be_done_is_refused(kind, changes, named, gpt2):
    config = replace(gpt2, **changes)
    with pytest.raises(InputError, match=re.escape(named)):
        parallel.check(Ranks(kind, 0, 2), config, config.model.build(0))
    parallel.check(Ranks(), config, config.model.build(0))


def test_batchnorm_and_images_are_refused_where_they_would_be_another_run(resnet, tmp_path):
    model = resnet.model.build(0)
    with pytest.raises(InputError, match="accumulate = 1 is not allowed: it must be a multiple of 2"):
        parallel.check(Ranks("ddp", 0, 2), replace(resnet, accumulate=1), model)
    with pytest.raises(InputError, match="ddp for other models than GPT-2"):
        parallel.check(Ranks("fsdp", 0, 2), resnet, model)
    with pytest.raises(InputError, match="parallel = 'fast' is not allowed: it must be one of auto, none, ddp, fsdp"):
        train(resnet, tmp_path, parallel="fast")
    assert not any(tmp_path.iterdir())
