import json
import shutil

import pytest

from decaylab.cli import main
from paper.figures import NAMES
from paper.figures.build import RESULTS

NAME = "end_of_run"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["figure", *map(str, arguments)])
    return stop.value.code if isinstance(stop.value.code, int) else 1


@pytest.fixture
def results(tmp_path):
    (tmp_path / "cpu").mkdir()
    shutil.copy(RESULTS / "cpu" / f"{NAME}.parquet", tmp_path / "cpu")
    return tmp_path


def test_a_figure_is_drawn_from_its_table_and_its_verdict_is_the_exit_code(results, capsys):
    assert run(NAME, "--results", results, "--json") == 0
    figure = json.loads(capsys.readouterr().out)["figures"][NAME]
    assert figure["verdict"] == "pass"
    assert all(check["verdict"] == "pass" for check in figure["checks"])
    assert json.loads((results / "cpu" / "checks.json").read_text())["figures"][NAME]["verdict"] == "pass"
    assert {path.name for path in (results / "cpu").glob(f"{NAME}.*")} == {
        f"{NAME}.{suffix}" for suffix in ("parquet", "pdf", "png")
    }
    assert run(NAME, "--results", results) == 0
    assert f"{NAME}: pass" in capsys.readouterr().out


def test_missing_runs_are_an_exit_code_and_a_sentence(tmp_path, capsys):
    arguments = ("overtraining_heatmap", "--results", tmp_path, "--runs", tmp_path / "runs", "--no-train")
    assert run(*arguments) == 1
    assert "60 runs are missing" in capsys.readouterr().out


def test_the_list_names_every_figure(results, capsys):
    assert run("list", "--results", results) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert run("list", "--results", results, "--json") == 0
    figures = {row["figure"]: row for row in json.loads(capsys.readouterr().out)["figures"]}
    assert figures[NAME]["state"] == "complete"
    assert figures["overtraining_heatmap"]["state"] == "none"
    assert figures["overtraining_heatmap"]["minutes"] >= 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("fig1",), ("figure = 'fig1'", "overtraining_curves")), ((NAME, "--scale", "gpu"), ("scale = 'gpu'", "cpu"))],
)
def test_misuse_gets_one_sentence(arguments, words, tmp_path, capsys):
    assert run(*arguments, "--results", tmp_path) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
