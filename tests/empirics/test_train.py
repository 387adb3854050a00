import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from empirics import checkpoint, measure
from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.directory import RunDirectory
from empirics.files import DiskFullError
from empirics.interrupt import Interrupted
from empirics.models import GPT2Config, ResNetConfig
from empirics.plan import Probes
from empirics.train import train
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Linear, Piecewise
from theory.serialize import to_json

KILLED = """
import os, signal, sys
from theory.serialize import from_json
from empirics import log
from empirics.train import train
config, step = from_json(sys.argv[1]), int(sys.argv[3])
add = log.Log.add
def add_or_die(self, at, *rest):
    if at == step:
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    add(self, at, *rest)
log.Log.add = add_or_die
train(config, sys.argv[2])
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    rng = np.random.default_rng(0)
    for name, count in (("train", 6000), ("val", 600)):
        rng.integers(50, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return folder


@pytest.fixture
def gpt2(tokens):
    return TrainConfig(
        name="gpt2",
        model=GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1),
        data=TextData(source=f"bin:{tokens}", vocab_size=50, block_size=8, val_windows=16),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        schedule=Cosine(warmup=5, final=0.1),
        steps=40,
        batch_size=4,
        grad_clip=0.5,
        rotation_every=3,
        flush_every=7,
        checkpoint_every=10,
        eval_every=20,
    )


@pytest.fixture
def resnet():
    return TrainConfig(
        name="resnet",
        model=ResNetConfig(width=2),
        data=ImageData(train=100),
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
        schedule=Linear(final=0.1),
        steps=30,
        batch_size=16,
        rotation_every=1,
        flush_every=4,
        checkpoint_every=8,
    )


EVERYTHING = Probes(
    activations=2,
    hessian_trace="9+end",
    hessian_top="end",
    noise_scale="log:1",
    jacobian="11",
    signal=8,
    windows=(1, 3, 7),
    examples=4,
    rel_error=0.3,
    lags=4,
)


@pytest.fixture
def watched(gpt2):
    """Every probe, and stochastic rounding: checkpoints come inside windows, and the noise has a state of its own."""
    return replace(gpt2, probes=EVERYTHING, precision="emulated:m7e8:stochastic", eval_every=0)


@pytest.fixture
def watched_images(resnet):
    return replace(resnet, probes=replace(EVERYTHING, activations="auto"), eval_every=22)


def outcome(record) -> dict[str, bytes]:
    """Everything of a finished run that must not depend on interruptions, to the bit."""
    last = checkpoint.checkpoints(record.path / "checkpoints")[-1]
    files = [record.path / "metrics.jsonl", record.path / "metrics.parquet", last / "model.safetensors"]
    optimizer = torch.load(last / "state.pt", weights_only=True)["optimizer"]["state"]
    moments = b"".join(t.numpy().tobytes() for s in optimizer.values() for t in s.values() if t is not None)
    return {file.name: file.read_bytes() for file in files} | {"moments": moments}


def child(config: TrainConfig, root: Path, step: int, sign: str) -> None:
    """Train in another process that sends itself a signal at a step."""
    command = [sys.executable, "-c", KILLED, to_json(config), str(root), str(step), sign]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == {"SIGKILL": -signal.SIGKILL, "SIGTERM": 130}[sign], done.stderr


def signal_after(steps: int, number: int):
    """A `progress` that sends this process a signal, once."""
    return lambda done, *_: os.kill(os.getpid(), number) if done == steps else None


@pytest.mark.parametrize("kind", ["gpt2", "resnet", "watched", "watched_images"])
def test_killed_at_a_random_step_and_resumed_is_bitwise_uninterrupted(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    whole = train(config, tmp_path / "whole")
    step = random.SystemRandom().randrange(config.steps)
    print("killed at step", step)
    child(config, tmp_path / "killed", step, "SIGKILL")
    path = tmp_path / "killed" / config.directory
    assert (path / "lock").exists()
    record = train(config, tmp_path / "killed")
    assert record.path == path
    assert outcome(record) == outcome(whole)
    assert record.status == "finished"


def test_sigterm_saves_says_how_to_go_on_and_exits_130(gpt2, tmp_path):
    child(gpt2, tmp_path / "stopped", 13, "SIGTERM")
    path = tmp_path / "stopped" / gpt2.directory
    assert [p.name for p in checkpoint.checkpoints(path / "checkpoints")] == ["step-00000010", "step-00000014"]
    assert outcome(train(gpt2, tmp_path / "stopped")) == outcome(train(gpt2, tmp_path / "whole"))


def test_ctrl_c_in_this_process(gpt2, tmp_path):
    with pytest.raises(Interrupted, match="was stopped and saved after 8 of 40 steps: the same command continues it"):
        train(gpt2, tmp_path, progress=signal_after(7, signal.SIGINT))
    assert train(gpt2, tmp_path).status == "finished"


def test_a_damaged_last_checkpoint_costs_time_but_no_bit(gpt2, tmp_path):
    whole = train(gpt2, tmp_path / "whole")
    child(gpt2, tmp_path / "killed", 35, "SIGKILL")
    folder = tmp_path / "killed" / gpt2.directory / "checkpoints"
    (folder / "step-00000030" / "complete.json").unlink()
    with pytest.warns(UserWarning, match="step-00000030 is incomplete"):
        record = train(gpt2, tmp_path / "killed")
    assert outcome(record) == outcome(whole)


def test_a_torn_last_line_costs_nothing(gpt2, tmp_path):
    whole = train(gpt2, tmp_path / "whole")
    child(gpt2, tmp_path / "killed", 25, "SIGKILL")
    with open(tmp_path / "killed" / gpt2.directory / "metrics.jsonl", "a") as file:
        file.write('{"step": 25, "values": {"loss": {"": 3.')
    assert outcome(train(gpt2, tmp_path / "killed")) == outcome(whole)


@pytest.mark.parametrize("kind", ["gpt2", "resnet"])
def test_probe_attached_or_not_the_weights_are_bitwise_the_same(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    weights = []
    for every in (0, 1):
        record = train(replace(config, rotation_every=every), tmp_path)
        weights.append(load_file(checkpoint.checkpoints(record.path / "checkpoints")[-1] / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("kind", ["watched", "watched_images"])
def test_with_every_probe_or_none_training_and_its_directory_are_the_same(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    plain = replace(config, probes=Probes.none())
    assert config.directory == plain.directory
    with_probes, without = train(config, tmp_path / "with"), train(plain, tmp_path / "without")
    assert outcome(with_probes)["model.safetensors"] == outcome(without)["model.safetensors"]
    assert outcome(with_probes)["moments"] == outcome(without)["moments"]
    measured, few = with_probes.metrics(), without.metrics()
    both = few.merge(measured, on=["step", "tensor", "quantity"], suffixes=("", "_with"))
    assert len(both) == len(few) < len(measured)
    assert both["value"].equals(both["value_with"])
    assert not measured.duplicated(["step", "tensor", "quantity"]).any()


def test_killed_inside_a_window_the_probes_go_on_where_they_were(watched, tmp_path):
    whole = train(watched, tmp_path / "whole")
    child(watched, tmp_path / "killed", 35, "SIGKILL")
    newest = checkpoint.checkpoints(tmp_path / "killed" / watched.directory / "checkpoints")[-1]
    extra = torch.load(newest / "state.pt", weights_only=True)["extra"]
    assert extra["probes"]["windows"]["opened"] == 28  # of 7 steps, the checkpoint is of 30
    assert {"windows", "signal"} == extra["probes"].keys()
    assert extra["noise"].dtype == torch.uint8
    assert outcome(train(watched, tmp_path / "killed")) == outcome(whole)


def test_a_compiled_model_is_sampled_on_the_same_pass(watched, tmp_path, monkeypatch):
    """Compilation itself is left out; what matters is that no hook is on the model that is trained."""
    config = replace(watched, probes=Probes(activations=10), precision="float32")
    plain = train(config, tmp_path)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    sampled = train(replace(config, compile=True), tmp_path)
    assert outcome(sampled)["model.safetensors"] == outcome(plain)["model.safetensors"]
    for quantity in ("residual_rms", "attention_logit_max", "branch_lost"):
        assert sampled.pivot(quantity).equals(plain.pivot(quantity))


def test_probes_are_recorded_at_their_steps_with_their_units(watched, tmp_path):
    record = train(watched, tmp_path)
    steps = {
        "residual_rms": range(0, 40, 2),
        "hessian_trace": [0, 9, 18, 27, 36, 39],
        "hessian_trace_stderr": [0, 9, 18, 27, 36, 39],
        "hessian_top": [39],
        "noise_scale": [0, 1, 10],
        "jacobian_fro": [0, 11, 22, 33],
        "signal": [8, 16, 24, 32],
        "angle_1": range(0, 40, 7),
        "row_angle_7": range(6, 40, 7),
    }
    table = record.metrics()
    for quantity, expected in steps.items():
        assert table[table["quantity"] == quantity]["step"].unique().tolist() == list(expected), quantity
    units = table.drop_duplicates("quantity").set_index("quantity")["unit"]
    assert (units["angle_1"], units["row_angle_7"], units["noise_scale_stderr"]) == ("rad", "rad", "examples")
    assert table[table["quantity"].str.startswith("signal")]["value"].notna().all()


def test_images_leave_the_jacobian_to_the_evaluation_where_there_is_one(watched_images, tmp_path):
    record = train(watched_images, tmp_path)
    assert record.series("jacobian_fro").index.tolist() == [0, 11, 21, 22, 29]  # 21 and 29 are evaluations
    assert record.series("jacobian_inputs").index.tolist() == [0, 11, 21, 22, 29]


def test_the_bill_is_measured_and_printed(watched, tmp_path):
    record = train(watched, tmp_path)
    cost = record.cost()
    assert {item.probe for item in cost.items} == {
        "rotation",
        "activations",
        "windows",
        "signal",
        "hessian_trace",
        "hessian_top",
        "noise_scale",
        "jacobian",
    }
    assert all(0 < item.seconds < cost.seconds for item in cost.items)
    assert "hessian_trace" in str(cost)
    assert json.loads((record.path / "timing.json").read_text())["probes"]["seconds"] == cost.seconds


def test_other_probes_may_continue_a_run_but_cannot_measure_one_that_is_over(watched, tmp_path):
    plain = replace(watched, probes=Probes.none())
    with pytest.raises(Interrupted):
        train(plain, tmp_path, progress=signal_after(7, signal.SIGTERM))
    record = train(watched, tmp_path)
    assert record.config.probes == watched.probes
    assert record.series("hessian_trace").index.tolist() == [9, 18, 27, 36, 39]
    with pytest.warns(UserWarning, match="was measured by other probes: `decaylab probe` measures its checkpoints"):
        train(plain, tmp_path)


def test_a_probe_that_fails_leaves_a_gap_and_says_so(watched, tmp_path, monkeypatch):
    def fails(subject):
        raise InputError("no.")

    monkeypatch.setitem(measure.PROBES, "hessian_top", fails)
    with pytest.warns(UserWarning, match="hessian_top was not measured after step 39: no"):
        record = train(watched, tmp_path)
    assert record.status == "finished"


def test_the_loop_is_the_plain_loop(gpt2, tmp_path):
    """Losses, gradient norms, rates and final weights against a loop written out with torch's own functions."""
    config = replace(gpt2, eval_every=0, checkpoint_every=0, loss_every=1, rotation_every=5)
    record = train(config, tmp_path)
    data, model = config.data.open(), config.model.build(config.seed)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    torch.manual_seed(config.seed)
    losses, norms, rates = [], [], []
    for step in range(config.steps):
        rates.append(0.01 * float(config.schedule.at(step, config.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        loss = model.loss(*data.batch(step, 4))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert record.series("loss").to_numpy() == pytest.approx(losses, rel=1e-5)
    assert record.series("grad_norm_total").to_numpy() == pytest.approx(norms, rel=1e-4)
    assert record.series("lr").to_dict() == pytest.approx({t: rates[t] for t in range(0, 40, 5)})
    final = record.series("train_loss_fresh")
    assert final.to_dict() == {39: pytest.approx(np.mean(losses), rel=1e-5)}
    assert record.series("clipped_fraction")[39] == pytest.approx(np.mean(np.array(norms) > 0.5))
    saved = load_file(record.path / "checkpoints" / "step-00000040" / "model.safetensors")
    for name, weights in model.named_parameters():
        assert torch.allclose(saved[name], weights, atol=1e-5)
    norm0 = record.pivot("norm0").loc[0]
    initial = config.model.build(config.seed).get_parameter("transformer.wte.weight")
    assert norm0["transformer.wte.weight"] == pytest.approx(initial.norm().item(), rel=1e-6)


def test_evaluations_timing_and_progress(gpt2, tmp_path):
    seen = []
    record = train(gpt2, tmp_path, progress=lambda *args: seen.append(args))
    assert record.series("val_loss").index.tolist() == [19, 39]
    assert [done for done, *_ in seen] == [7, 10, 14, 20, 21, 28, 30, 35, 40]
    assert {steps for _, steps, _ in seen} == {40}
    assert seen[-1][2] == record.series("loss")[39]
    timing = json.loads((record.path / "timing.json").read_text())
    assert timing["steps"] == 40
    assert timing["tokens_per_second"] == pytest.approx(40 * 4 * 8 / timing["seconds"])
    assert not any("second" in quantity for quantity in record.metrics()["quantity"].unique())
    assert record.description["environment"]["threads"] == 1
    assert "def train(" in (record.path / "source.txt").read_text()


def test_images_are_evaluated_at_the_end(resnet, tmp_path):
    record = train(resnet, tmp_path)
    for quantity in ("test_error", "test_loss", "train_error", "train_loss_fresh"):
        assert record.series(quantity).index.tolist() == [29]
    assert len(record.pivot("angle")) == 30


def test_what_diverges_is_a_result(gpt2, tmp_path):
    config = replace(gpt2, optimizer=AdamW(lr=1e12, weight_decay=0.0), schedule=Linear(), grad_clip=0.0)
    record = train(config, tmp_path)
    assert record.status == "diverged"
    step = record.divergence["step"]
    assert re.fullmatch(f"step {step}: loss is (nan|inf)", record.divergence["trigger"])
    losses = record.series("loss")
    assert losses.index[-1] == step
    assert math.isnan(losses.iloc[-1])
    assert np.isfinite(losses.iloc[:-1]).all()
    assert record.metrics()["step"].max() == step
    assert (record.path / "metrics.parquet").exists()
    assert sum(t["not_finite"] for t in record.divergence["tensors"].values()) > 0
    before = record.path.stat().st_mtime_ns
    assert train(config, tmp_path).status == "diverged"
    assert record.path.stat().st_mtime_ns == before


@pytest.fixture
def jumping(gpt2):
    """The learning rate jumps a thousandfold after 60 of 80 steps, and with it the loss."""
    jump = Piecewise(knots=((0, 0.001), (60, 1.0)))
    return replace(gpt2, schedule=jump, optimizer=AdamW(lr=3.0), steps=80)


def test_a_spike_is_an_event_that_ends_the_run_only_on_demand(jumping, tmp_path):
    record = train(jumping, tmp_path)
    assert record.status == "finished"
    (event,) = record.events
    assert event["kind"] == "spike"
    assert 60 < event["step"] < 63
    assert record.series("spike").to_dict() == {
        event["step"]: pytest.approx(float(event["trigger"].split()[5]), abs=0.05)
    }
    assert "exp_avg" in event["tensors"]["transformer.wte.weight"]
    ended = train(replace(jumping, ends_on=("spike",)), tmp_path)
    assert ended.status == "diverged"
    assert ended.divergence["step"] == event["step"]
    assert ended.divergence["trigger"] == event["trigger"]
    assert ended.metrics()["step"].max() == event["step"]


def test_events_survive_a_kill_once(jumping, tmp_path):
    whole = train(jumping, tmp_path / "whole")
    child(jumping, tmp_path / "killed", 75, "SIGKILL")
    record = train(jumping, tmp_path / "killed")
    assert [(e["step"], e["trigger"]) for e in record.events] == [(e["step"], e["trigger"]) for e in whole.events]
    assert outcome(record) == outcome(whole)


@pytest.mark.parametrize(("precision", "verdict"), [("emulated:m10e5", "precision"), ("emulated:m7e8", None)])
def test_a_low_precision_run_that_diverges_says_whether_precision_was_why(gpt2, tmp_path, precision, verdict):
    """Weights grow by 1 a step: activations leave fp16's range after some ten steps, never that of bf16."""
    wide = replace(gpt2.model, dropout=0.0)
    growing = replace(gpt2, model=wide, optimizer=AdamW(lr=1.0, weight_decay=0.0), schedule=Linear(final=1.0))
    record = train(replace(growing, grad_clip=0.0, precision=precision), tmp_path)
    if verdict is None:
        assert record.status == "finished"
        return
    assert record.status == "diverged"
    assert record.divergence["replay"]["verdict"] == verdict
    assert record.divergence["replay"]["sentence"].endswith("precision was the cause.")
    assert None in record.divergence["replay"]["control"]  # JSON has no nan
    assert not (record.path / "lock").exists()


class Expected:
    recipe = Recipe(AdamW(lr=0.01), steps=40, groups=(Group("w", (2,)),))

    def table(self):
        return pd.DataFrame({"step": [0], "value": [1.0]})


def test_the_prediction_comes_before_step_0_once_and_changes_nothing(gpt2, tmp_path):
    calls = []

    def predict(model, optimizer, config):
        assert not (tmp_path / "run" / config.directory / "metrics.jsonl").exists()
        assert optimizer.param_groups[0]["params"][0] is next(model.parameters())
        calls.append(torch.rand(5))  # uses random numbers
        return Expected()

    with pytest.raises(Interrupted):
        train(gpt2, tmp_path / "run", predict=predict, progress=signal_after(7, signal.SIGTERM))
    record = train(gpt2, tmp_path / "run", predict=predict)
    assert len(calls) == 1
    assert record.preregistered
    assert record.recipe == Expected.recipe
    assert outcome(record) == outcome(train(gpt2, tmp_path / "without"))


def test_a_finished_run_is_left_alone(gpt2, tmp_path, monkeypatch):
    record = train(gpt2, tmp_path)
    before = outcome(record)
    monkeypatch.setattr(RunDirectory, "create", None)
    monkeypatch.setattr(TextData, "open", None)
    assert outcome(train(gpt2, tmp_path)) == before


def test_another_configuration_another_writer_other_data_and_no_resume_are_refused(gpt2, tmp_path):
    with pytest.raises(Interrupted):
        train(gpt2, tmp_path, progress=signal_after(7, signal.SIGTERM))
    path = tmp_path / gpt2.directory
    with pytest.raises(InputError, match="holds a partial run: resume it, or remove the directory"):
        train(gpt2, tmp_path, resume=False)
    with RunDirectory(path, gpt2), pytest.raises(InputError, match="is being written by"):
        train(gpt2, tmp_path)
    other = replace(gpt2, seed=1)
    path.rename(tmp_path / other.directory)
    with pytest.raises(InputError, match="holds another run: seed is 0 there, 1 here"):
        train(other, tmp_path)
    (tmp_path / other.directory).rename(path)
    file = path / "config.json"
    file.write_text(re.sub(r'"data_hash": "\w+"', '"data_hash": "0"', file.read_text()))
    with pytest.raises(InputError, match="was trained on other data"):
        train(gpt2, tmp_path)


def test_too_little_data_is_said_before_anything_is_written(gpt2, tmp_path):
    with pytest.raises(InputError, match="tokens are missing"):
        train(replace(gpt2, steps=10_000), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(gpt2, tmp_path, monkeypatch):
    whole = train(gpt2, tmp_path / "whole")
    write_file = checkpoint.write_file

    def full(path, data):
        if "step-00000030" in str(path):
            raise OSError(28, "No space left on device")
        write_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", full)
        with pytest.raises(DiskFullError, match=r"The disk is full: .* free space and resume"):
            train(gpt2, tmp_path / "full")
    folder = tmp_path / "full" / gpt2.directory / "checkpoints"
    assert [path.name for path in checkpoint.checkpoints(folder)] == ["step-00000010", "step-00000020"]
    assert outcome(train(gpt2, tmp_path / "full")) == outcome(whole)


def test_bf16_trains_to_about_the_same_loss(gpt2, tmp_path):
    base = replace(gpt2, model=replace(gpt2.model, dropout=0.0))
    reference = train(base, tmp_path).series("loss")
    found = train(replace(base, precision="bf16"), tmp_path).series("loss")
    assert not found.equals(reference)
    assert found.to_numpy() == pytest.approx(reference.to_numpy(), rel=0.02)


def test_threads_signals_and_hooks_are_given_back(gpt2, tmp_path):
    before = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    train(replace(gpt2, threads=2), tmp_path)
    assert (torch.get_num_threads(), signal.getsignal(signal.SIGINT)) == before


def test_training_outside_the_main_thread(gpt2, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(train(gpt2, tmp_path).status))
    thread.start()
    thread.join()
    assert done == ["finished"]
