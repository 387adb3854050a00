"""The README's code and commands run as written."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from decaylab.cli import main

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.strip()
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith("decaylab ")
]
TARGETS = [
    line.split()[1]
    for language, text in BLOCKS
    if not language
    for line in text.splitlines()
    if line.startswith("make ")
]


def test_the_readme_has_code_and_commands():
    assert len(PYTHON) >= 2
    assert {shlex.split(command)[1] for command in COMMANDS} == {
        "predict",
        "train",
        "audit",
        "compare",
        "validate",
        "probe",
        "replay",
        "data",
        "report",
        "explore",
    }


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_commands_run_in_order(tmp_path, monkeypatch, capsys):
    """All but validate and explore: see tests/decaylab/test_validate.py and tests/bridge/test_explore.py."""
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        _, name, *arguments = shlex.split(command)
        if name in ("validate", "explore") or (name == "report" and find_spec("bokeh") is None):
            continue
        if "runs/<name>-<hash8>" in arguments:
            (path,) = (tmp_path / "runs").iterdir()
            arguments = [str(path) if argument == "runs/<name>-<hash8>" else argument for argument in arguments]
        with pytest.raises(SystemExit) as stop:
            main([name, *arguments])
        assert stop.value.code == 0, capsys.readouterr().err
