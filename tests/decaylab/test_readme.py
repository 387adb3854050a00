"""The README's code and commands run as written."""

import os
import re
import shlex
import subprocess
import sys
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
    if line.startswith(("decaylab ", "torchrun "))
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
    assert {shlex.split(command)[1] for command in COMMANDS if command.startswith("decaylab")} == {
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
        "sweep",
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
    first: list[Path] = []
    for command in COMMANDS:
        program, name, *arguments = shlex.split(command)
        if program == "torchrun":
            torchrun = [sys.executable, "-m", "torch.distributed.run", name, *arguments]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            subprocess.run(torchrun, check=True, env=environment, timeout=300)
            continue
        if name in ("validate", "explore") or (name == "report" and find_spec("bokeh") is None):
            continue
        if "runs/<name>-<hash8>" in arguments:
            first = first or list((tmp_path / "runs").iterdir())
            (path,) = first
            arguments = [str(path) if argument == "runs/<name>-<hash8>" else argument for argument in arguments]
        with pytest.raises(SystemExit) as stop:
            main([name, *arguments])
        assert stop.value.code == 0, capsys.readouterr().err
