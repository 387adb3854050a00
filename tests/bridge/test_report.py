import re

import pandas as pd
import pytest

from bridge.check import Check, checks_table
from bridge.report import FigureItem, Section, TableItem, write_report
from tests.bridge.balanced import Balanced

HOSTILE = "<script>alert('&')</script>"


@pytest.fixture
def html(tmp_path):
    checks = checks_table([Check("law a", "claim a", 0.1, 0.2), Check("law b", HOSTILE, 0.3, 0.2, note="worst: w")])
    frame = pd.DataFrame(
        {"tensor": [f"tensor {i}" for i in range(20)], "norm residual": [0.125] * 20, "seen": [1.0] * 20}
    )
    section = Section(
        HOSTILE,
        ("A paragraph.",),
        (FigureItem("A figure", "Its caption.", '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>'),),
        (TableItem("A table", "What it shows.", frame), TableItem("Short", "Few rows.", frame.head(2))),
    )
    path = write_report(
        tmp_path / "report.html",
        title="A run",
        summary=["1 of 2 bounds fail.", "A second sentence."],
        checks=checks,
        sections=[section],
        recipes={"run-1": '{"lr": 0.1}'},
        environment={"versions": {"torch": "2"}, "device": "cpu"},
    )
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]  # no temporary file is left
    return path.read_text()


def test_it_is_well_formed_and_refers_to_nothing_outside(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert not re.search(r"https?://|src=|@import|<link|<script", html)


def test_it_says_the_verdict_first_and_shows_everything(html):
    assert html.index("1 of 2 bounds fail.") < html.index("A second sentence.") < html.index("law a")
    assert 'class="verdict fail"' in html
    for text in ("✓ pass", "✗ FAIL", "A figure", "Its caption.", "tensor 19", "+12.5%", "run-1", "versions.torch"):
        assert text in html


def test_hostile_text_is_escaped(html):
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") == 2


def test_long_tables_are_folded_and_short_ones_are_not(html):
    assert re.search(r"<details><summary>A table", html)
    assert not re.search(r"<details><summary>Short", html)
