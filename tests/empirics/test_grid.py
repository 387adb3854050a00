import doctest
import json
from importlib import import_module

import pytest

from empirics.experiments import experiment
from empirics.grid import grid, read_configs
from theory.errors import InputError
from theory.serialize import to_dict

NAME = "resnet_noisy_digits"


def test_a_grid_is_every_combination_and_a_seed_is_the_experiments():
    runs = grid(NAME, ["optimizer.lr=0.1,2e-1", "seed=0,3", "batch_size=16"])
    assert [(run.optimizer.lr, run.seed, run.data.order_seed) for run in runs] == [
        (0.1, 0, 0),
        (0.1, 3, 3),
        (0.2, 0, 0),
        (0.2, 3, 3),
    ]
    assert {run.batch_size for run in runs} == {16}
    assert len({run.directory for run in runs}) == 4
    assert grid(NAME, []) == [experiment(NAME)]


def test_commas_in_brackets_and_quotation_marks_separate_nothing():
    runs = grid("gpt2_small_text", ["optimizer.betas=[0.9,0.95],[0.9,0.99]", 'decay=all,"regex:attn.{1,8}weight"'])
    assert [(run.optimizer.betas[1], run.decay) for run in runs] == [
        (0.95, "all"),
        (0.95, "regex:attn.{1,8}weight"),
        (0.99, "all"),
        (0.99, "regex:attn.{1,8}weight"),
    ]


def test_files_of_configurations(tmp_path):
    (tmp_path / "runs.json").write_text(
        json.dumps(
            [
                to_dict(experiment(NAME)),
                {"experiment": NAME, "seed": 1, "set": {"optimizer.lr": 0.5, "decay": "all"}},
                {"config": to_dict(experiment(NAME, seed=2)), "hash": "as in config.json"},
            ]
        )
    )
    runs = read_configs(tmp_path / "runs.json")
    assert [(run.seed, run.optimizer.lr) for run in runs] == [(0, 0.3), (1, 0.5), (2, 0.3)]
    body = "from empirics.experiments import experiment\n"
    (tmp_path / "list.py").write_text(body + f"configs = [experiment({NAME!r})]")
    (tmp_path / "function.py").write_text(body + f"def configs():\n    yield experiment({NAME!r})")
    assert read_configs(tmp_path / "list.py") == read_configs(tmp_path / "function.py") == [experiment(NAME)]


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (["steps"], "--set = 'steps' is not allowed: it must be field=value"),
        (["steps=1,,2"], "--set = 'steps=1,,2'"),
        (["steps=1", "steps=2"], "--set = 'steps=1' .* the only one of steps"),
        (["seed=x"], "--set seed = 'x'"),
        (["stepz=1"], "'stepz' names no field"),
    ],
)
def test_a_bad_grid_gets_one_sentence(assignments, sentence):
    with pytest.raises(InputError, match=sentence):
        grid(NAME, assignments)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "", "a \\*.json or \\*.py that exists"),
        ("a.json", "[", "is not JSON"),
        ("a.json", "[]", "holds no configurations"),
        ("a.json", "[1]", "holds '1', which is no TrainConfig"),
        ("a.json", '[{"kind": "SGD", "lr": 1}]', "which is no TrainConfig"),
        ("a.json", '[{"experiment": "resnet_noisy_digits", "lr": 1}]', "'lr' is not allowed beside experiment"),
        ("a.json", '[{"experiment": "nothing"}]', "experiment = 'nothing'"),
        ("a.py", "configs = 1/0", "cannot be run .ZeroDivisionError"),
        ("a.py", "x = 1", "holds no configurations"),
    ],
)
def test_a_bad_file_gets_one_sentence(name, text, sentence, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_configs(tmp_path / name)


@pytest.mark.parametrize(
    "module",
    ["grid", "elsewhere", "sweep", "published", "executors.choose", "executors.local", "executors.torchrun"],
)
def test_the_examples_in_docstrings_run(module):
    found = doctest.testmod(import_module(f"empirics.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
