import json

import pytest

import decaylab as dl
import empirics.sweep
from decaylab.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_sweep_trains_prints_its_table_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [
        {
            "experiment": "vgg16_cifar10",
            "set": {
                "steps": 4,
                "data.train": 64,
                "optimizer.weight_decay": 0.0,
                "schedule.knots": [[0, 1.0]],
                "optimizer.lr": lr,
            },
        }
        for lr in (0.1, 1e30)
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    assert run("sweep", "runs.json", "--workers", "2", "--json") == 1  # one has diverged
    table = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in table] == ["finished", "diverged"]
    assert [row["optimizer.lr"] for row in table] == [0.1, 1e30]
    assert run("sweep", "runs.json", "--json") == 1
    assert json.loads(capsys.readouterr().out) == table
    assert run("sweep", "runs") == 1  # the table alone
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "2 runs"
    assert {"run", "optimizer.lr", "status", "loss", "norm"} <= set(lines[1].split())
    assert run("sweep", "runs.json", "--set", "optimizer.lr=0.001", "name=a") == 2
    assert "a-" in capsys.readouterr().err  # all the same now


def test_the_front_door_has_it():
    assert dl.sweep is empirics.sweep.sweep
    assert dl.Sweep.open is empirics.sweep.Sweep.open


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), ("experiment = 'nothing'", "gpt2_small_text")),
        (("gpt2_small_text", "--set", "steps=1,"), ("--set = 'steps=1,'", "field=value")),
        (("gpt2_small_text", "--grid", "optimizer.lrr=1,2"), ("optimizer.lrr", "lr")),
        (("gpt2_small_text", "--processes", "2"), ("processes = 2", "the executor local has workers")),
        (("gpt2_small_text", "--executor", "slurm", "--slurm", "x"), ("--slurm 'x'", "option=value")),
        (("runs.json",), ("file = 'runs.json'", "exists")),
        ((".",), ("root = '.'", "run directories")),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("sweep", *arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert all(word in line for word in words)
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_is_complete(capsys):
    assert run("sweep", "--help") == 0
    assert {"--set", "--grid", "--executor", "--retry", "--json"} <= set(
        capsys.readouterr().out.replace(",", " ").split()
    )
