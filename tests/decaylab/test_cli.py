import json
from pathlib import Path

import pandas as pd
import pytest

from decaylab.cli import main
from theory import shapes
from theory.optimizers import AdamW
from theory.recipe import Recipe
from theory.schedules import Cosine


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code if isinstance(stop.value.code, int) else 1


@pytest.mark.parametrize("command", ["predict", "train", "validate", "compare", "audit", "probe", "replay", "report"])
def test_help_is_complete(command, capsys):
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert len(text) > 300


def test_predict_json_is_the_prediction(capsys):
    assert run("predict", "--steps", "1000", "--warmup", "10", "--at", "500", "999", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert Recipe.from_json(json.dumps(out["recipe"])).hash == out["hash"]
    rows = [row for row in out["table"] if row["quantity"] == "angle" and row["step"] == 999]
    assert len(rows) == 148
    assert all(0 < row["low"] <= row["value"] <= row["high"] for row in rows)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", "SGD"),
        ("adam", "Adam"),
        ("lion", "Lion"),
        ("signum", "Signum"),
        ("normalized", "NormalizedMomentum"),
        ("muon", "Muon"),
        ("hyperball", "Hyperball"),
    ],
)
def test_predict_knows_every_optimizer(name, kind, capsys):
    assert run("predict", "--optimizer", name, "--momentum", "0.8", "--steps", "100", "--at", "50", "--json") == 0
    optimizer = json.loads(capsys.readouterr().out)["recipe"]["optimizer"]
    assert optimizer["kind"] == kind
    assert optimizer.get("momentum", 0.8) == 0.8


def test_predict_prints_one_row_for_tensors_alike(capsys):
    assert run("predict", "--steps", "1000") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("transformer.wte.weight" in line and line.split()[0] == "26" for line in lines)
    assert any(line.startswith("! ") and "too small to matter" in line for line in lines)  # 6e-5 * 1000 = 0.06 -> ~0.03


def test_predict_reads_a_recipe_and_writes_tables_and_plots(tmp_path, capsys):
    recipe = Recipe(AdamW(lr=1e-3), Cosine(), 100, shapes.gpt2("124m"))
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    files = [tmp_path / "table.csv", tmp_path / "plot.png"]
    assert run("predict", "--recipe", tmp_path / "recipe.json", "--out", files[0], "--plot", files[1]) == 0
    assert recipe.hash[:8] in capsys.readouterr().out
    assert all(file.stat().st_size > 1_000 for file in files)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "--lr", "-1"), ("lr = -1.0", ">= 0")),
        (("predict", "--lr", "nan"), ("lr = nan", "finite")),
        (("predict", "--betas", "0.9", "1.5"), ("betas[1] = 1.5", "< 1")),
        (("predict", "--warmup", "100", "--steps", "10"), ("warmup = 100", "steps = 10")),
        (("predict", "--lr", "1", "--weight-decay", "2"), ("lr * weight_decay = 2", "below 1")),
        (("predict", "--model", "gpt5"), ("model = 'gpt5'", "gpt2-124m")),
        (("predict", "--recipe", "nowhere.json"), ("recipe = 'nowhere.json'", "cannot be read")),
        (("predict", "--out", "table.txt", "--steps", "100"), ("out = 'table.txt'", ".csv")),
        (("train", "nothing"), ("experiment = 'nothing'", "gpt2_small_text")),
        (("train", "gpt2_small_text", "--set", "optimizer.lrr=1"), ("optimizer.lrr", "lr")),
        (("train", "gpt2_small_text", "--set", "optimizer.lr=-1"), ("lr = -1", ">= 0")),
        (("train", "gpt2_small_text", "--set", "steps"), ("steps", "field=value")),
        (
            ("train", "gpt2_small_text", "--data", "cifar10"),
            ("data = 'cifar10'", "openwebtext", "for a language model"),
        ),
        (("train", "gpt2_small_text", "--data", "bin:nowhere"), ("nowhere/train.bin cannot be read", "No such file")),
        (("train", "resnet_noisy_digits", "--data", "text:a"), ("data = 'text:a'", "cifar10")),
        (("compare", "nowhere"), ("nowhere", "not a run directory")),
        (("compare",), ("RUN is missing",)),
        (("probe", "nothing"), ("target = 'nothing'", "a run directory, or one of gpt2_small_text")),
        (("probe", "resnet_noisy_digits", "--checkpoint", "3"), ("checkpoint = 3", "no run directory")),
        (("probe", "resnet_noisy_digits", "--probes", "sharpness"), ("probes = 'sharpness'", "hessian_trace")),
        (("replay", "nowhere"), ("nowhere", "not a run directory")),
        (("audit", "no.such.module:f"), ("no.such.module:f", "cannot be found")),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []  # nothing written


def test_unknown_options_exit_with_2(capsys):
    assert run("predict", "--learning-rate", "1") == 2


def test_train_compare_and_resume(tmp_path, capsys):
    sets = ["steps=60", "schedule.warmup=10", "data.val_windows=16", "checkpoint_every=30"]
    command = ("train", "gpt2_small_text", "--runs", tmp_path, "--json", "--set", *sets)
    assert run(*command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["status"] == "finished"
    assert 4 < first["final"]["val_loss"] < 7.5  # ln 1024 = 6.9 before training
    assert run(*command) == 0  # a finished run is not repeated
    assert json.loads(capsys.readouterr().out) == first
    assert run("compare", first["run"], "--json") == 0
    (compared,) = json.loads(capsys.readouterr().out)
    assert compared["preregistered"] is True
    updates = {row["tensor"]: row for row in compared["table"] if row["quantity"] == "angle"}
    assert len(updates) == 19
    assert run("compare", first["run"]) == 0
    assert "written before step 0" in capsys.readouterr().out
    assert run("audit", first["run"], "--set", "optimizer.weight_decay=0.2", "--json") == 0
    rows = {row["tensor"]: row["weight_decay"] for row in json.loads(capsys.readouterr().out)}
    assert (rows["transformer.wte.weight"], rows["transformer.ln_f.weight"]) == (0.2, 0.0)


def test_train_on_other_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DECAYLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tables").mkdir()
    texts = [f"def number_{i}():\n    return {i * i}\n" * 20 for i in range(100)]
    pd.DataFrame({"text": texts}).to_parquet(tmp_path / "tables" / "0.parquet")
    sets = ["steps=4", "schedule.warmup=1", "data.val_windows=4"]
    command = ("train", "gpt2_small_text", "--runs", tmp_path / "runs", "--json", "--set", *sets)
    assert run(*command, "--data", f"parquet:{tmp_path / 'tables'}") == 0
    out = json.loads(capsys.readouterr().out)
    config = json.loads((Path(out["run"]) / "config.json").read_text())["config"]
    assert config["data"]["source"] == f"parquet:{tmp_path / 'tables'}"
    assert out["status"] == "finished"


def test_audit_of_an_experiment_and_of_anyones_model(tmp_path, monkeypatch, capsys):
    assert run("audit", "resnet_noisy_digits", "--json") == 0
    rows = {row["tensor"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["conv.weight"]["scale_invariant"] == "yes"
    assert rows["head.weight"]["scale_invariant"] == "no"
    (tmp_path / "mine_for_audit.py").write_text(
        "import torch\n"
        "def setup():\n"
        "    model = torch.nn.Linear(3, 2)\n"
        "    return model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)\n"
        "def wrong():\n"
        "    return torch.nn.Linear(3, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run("audit", "mine_for_audit:setup") == 0
    assert "not tested" in capsys.readouterr().out
    assert run("audit", "mine_for_audit:wrong") == 2
    assert "must return (model, optimizer)" in capsys.readouterr().err


def test_probe_and_replay_of_a_run_and_of_an_experiment(tmp_path, capsys):
    sets = ["steps=30", "schedule.warmup=10", "data.val_windows=16", "checkpoint_every=10"]
    assert run("train", "gpt2_small_text", "--runs", tmp_path, "--json", "--set", *sets) == 0
    path = json.loads(capsys.readouterr().out)["run"]
    probe = ("probe", path, "--probes", "hessian_trace,activations", "--batch", "4", "--rel-error", "0.3")
    assert run(*probe, "--checkpoint", "20", "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert out["target"].endswith("after 20 steps")
    assert out["examples"] == 4
    trace, activations = out["probes"]
    (reading,) = trace["readings"]
    assert reading["quantity"] == "hessian_trace"
    assert 0 < reading["stderr"] < reading["value"]
    assert trace["seconds"] > 0
    assert {x["quantity"] for x in activations["readings"]} >= {"residual_rms", "attention_logit_max", "branch_lost"}
    assert run(*probe) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "after 30 steps: GPT2, 4 examples" in lines[0]
    assert {"value", "±", "seconds", "gradients"} <= set(lines[1].split())
    assert run("probe", path, "--checkpoint", "5") == 2
    assert "it has 20, 30" in capsys.readouterr().err
    assert run("probe", "gpt2_small_text", "--probes", "activations", "--batch", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["target"] == "gpt2_small_text before step 0"
    assert run("replay", path, "--dtype", "emulated:m10e5", "--from-step", "25", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "no divergence"
    assert found["steps"] == list(range(20, 30))
    assert found["control"] == found["original"] != found["replayed"]
    assert run("replay", path, "--from-step", "25") == 0
    assert "losses differ by at most 0 nats" in capsys.readouterr().out
    assert run("replay", path, "--dtype", "fp8") == 2
    assert "dtype = 'fp8'" in capsys.readouterr().err
