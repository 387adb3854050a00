"""The code in the documentation runs as written, page by page."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PROBES = (
    "jacobian",
    "hessian",
    "noise_scale",
    "signal",
    "rotation",
    "invariance",
    "activations",
    "divergence",
    "emulate",
)
SECTIONS = ("Setting and formula", "Policy", "Cost", "Example", "Beside its peers")
BLOCKS = {
    page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for page in DOCS.rglob("*.md")
}
RUNNABLE = [page for page, blocks in BLOCKS.items() if blocks]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_code_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for number, code in enumerate(BLOCKS[page]):
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_has_a_page_with_formula_policy_cost_example_and_peers(probe):
    page = DOCS / "probes" / f"{probe}.md"
    text = page.read_text()
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == SECTIONS
    assert "$" in text.split("## Policy")[0]
    assert BLOCKS[page]
    assert re.search(r"^\|---", text.split("## Beside its peers")[1], re.MULTILINE)
    assert f"({probe}.md)" in (DOCS / "probes" / "index.md").read_text()


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
