"""The first of the README's snippets in an environment that has no torch."""

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPET = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[1]
PROBE = """
import statistics, sys, time
seconds = []
for _ in range(3):
    began = time.perf_counter()
    dl.predict(recipe)
    seconds.append(time.perf_counter() - began)
print("predict:", statistics.median(seconds), "s")
assert statistics.median(seconds) < 2.5  # promised: one second; the margin is for slow machines
assert len(prediction.at(step=10_000)) == 148
assert len(prediction.table()) > 10_000
assert prediction.plot() is not None
assert isinstance(prediction.warnings, tuple)
assert "torch" not in sys.modules
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch is installed: this environment proves nothing")
try:
    dl.describe
except dl.InputError as error:
    assert "'train' extra" in str(error)
else:
    raise SystemExit("dl.describe works without torch?")
"""


@pytest.mark.slow
def test_predicting_needs_no_torch(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[plot]"]
    subprocess.run(install, check=True, cwd=tmp_path)
    (tmp_path / "snippet.py").write_text(SNIPPET + PROBE)
    done = subprocess.run([python, tmp_path / "snippet.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout, file=sys.stderr)
