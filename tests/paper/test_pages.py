"""The documentation: a page for every law, nothing out of date, and a site that builds without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import theory
from paper.pages import CHAPTERS, DOCS, NOT_LAWS, chapter_of, contents, pages
from theory.derivations import DERIVED

PAGES = pages()


def test_every_law_is_in_one_chapter():
    listed = [law for laws in contents().values() for law in laws]
    assert sorted(listed) == sorted(set(theory.__all__) - NOT_LAWS)
    assert all(chapter_of(law) in CHAPTERS for law in listed)


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_says_what_the_code_says(name):
    assert (DOCS / name).read_text() == PAGES[name], "run python -m paper.pages"


def test_no_page_is_left_over():
    assert {f"laws/{path.name}" for path in (DOCS / "laws").glob("*.md")} == set(PAGES)


@pytest.mark.parametrize("name", sorted(set(PAGES) - {"laws/index.md"}))
def test_a_page_has_all_its_parts(name):
    law, text = Path(name).stem, PAGES[name]
    for part in ("## Setting, source and validity", "## Call", ">>> ", "## References"):
        assert part in text, part
    assert ("## Derivation" in text) == (law in DERIVED)
    for link in re.findall(r"\]\(([\w./]+\.(?:svg|md))\)", text):
        assert (DOCS / "laws" / link).exists(), link


def test_the_site_builds_and_its_formulas_need_no_script(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "laws" / "adamw_equilibrium" / "index.html").read_text()
    assert page.count("<math") > 20
    assert "arithmatex" not in page
    assert "$$" not in page
