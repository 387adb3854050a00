"""The first of the README's snippets in a fresh environment that has no torch."""

import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("decaylab", "theory", "empirics", "bridge", "paper")
PROBE = """
import statistics, sys, time

try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch is installed: this environment proves nothing")

seconds = []
for _ in range(3):
    began = time.perf_counter()
    dl.predict(recipe)
    seconds.append(time.perf_counter() - began)
print(f"predict(): {statistics.median(seconds):.2f} s (median of 3)")
assert statistics.median(seconds) < 2.5  # promised: one second; 2.5 is for slow or busy machines

table, at = prediction.table(), prediction.at(step=10_000)
assert table.columns.tolist() == ["step", "group", "quantity", "value", "low", "high", "unit"]
assert table["group"].nunique() == len(at) == 148
assert table["value"].notna().all()
assert prediction.warnings == ()
prediction.plot().savefig("prediction.png")
assert open("prediction.png", "rb").read(4) == b"\\x89PNG"
assert "decaylab" in dl.__file__ and "site-packages" in dl.__file__

try:
    dl.describe
except dl.InputError as error:
    assert "'train' extra" in str(error)
else:
    raise SystemExit("dl.describe works without torch?")
"""


def first_snippet() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_predicting_needs_no_torch(tmp_path):
    source = tmp_path / "source"  # a copy, so that building leaves nothing behind in the repository
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", source, "matplotlib"]
    subprocess.run(install, check=True, cwd=tmp_path)
    (tmp_path / "snippet.py").write_text(first_snippet() + PROBE)
    done = subprocess.run([python, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout, file=sys.stderr)
