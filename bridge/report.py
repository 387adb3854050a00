"""A result that a person can read: one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from empirics.files import write_atomic

LONG_TABLE = 12
"""Tables with more rows are folded."""
SYMBOLS = {"pass": "✓ pass", "fail": "✗ FAIL"}


@dataclass(frozen=True)
class FigureItem:
    """A figure."""

    title: str
    caption: str
    """Claim, measured number, seeds."""
    svg: str
    """An `<svg>` element."""


@dataclass(frozen=True)
class TableItem:
    """A table."""

    title: str
    caption: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    text: Sequence[str] = ()
    """Paragraphs."""
    figures: Sequence[FigureItem] = ()
    tables: Sequence[TableItem] = ()


def write_report(
    path: Path,
    *,
    title: str,
    summary: Sequence[str],
    checks: pd.DataFrame,
    sections: Sequence[Section],
    recipes: Mapping[str, str],
    environment: Mapping[str, Any],
) -> Path:
    """Write the report: verdict in plain words, checks, sections, recipes, environment.

    It refers to nothing outside itself, works without scripts, folds long tables, and is readable on a phone, in print
    and in a dark room.

    Args:
        path: The HTML file.
        title: Its title.
        summary: Sentences, the verdict first.
        checks: As from `bridge.check.checks_table`; a column `verdict` with pass or fail is shown as word and symbol.
        sections: The rest, in order.
        recipes: JSON text by run.
        environment: Versions, device, threads, state of the repository.

    Returns:
        The path.
    """
    first, *rest = summary
    failed = "fail" in set(checks["verdict"])
    html = Template(PAGE).substitute(
        title=escape(title),
        verdict="fail" if failed else "pass",
        first=escape(first),
        summary="".join(f"<li>{escape(sentence)}</li>" for sentence in rest),
        checks=_table(checks),
        sections="".join(_section(section) for section in sections),
        recipes="".join(_folded(name, f"<pre>{escape(text)}</pre>") for name, text in recipes.items()),
        environment=_table(pd.DataFrame(_flat(environment), columns=["what", "value"])),
    )
    write_atomic(path, html)
    return path


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    for figure in section.figures:
        label = escape(figure.title, quote=True)
        parts.append(
            f'<figure><h3>{label}</h3><div class="scroll drawing" tabindex="0" role="img" aria-label="{label}">'
            f"{figure.svg}</div><figcaption>{escape(figure.caption)}</figcaption></figure>"
        )
    for table in section.tables:
        body = f"<p>{escape(table.caption)}</p>{_table(table.frame)}"
        folded = len(table.frame) > LONG_TABLE
        parts.append(_folded(table.title, body) if folded else f"<h3>{escape(table.title)}</h3>{body}")
    return "".join(parts) + "</section>"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    rows = []
    for row in frame.itertuples(index=False):
        cells = "".join(_cell(str(name), value) for name, value in zip(frame.columns, row, strict=True))
        rows.append(f"<tr>{cells}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _cell(name: str, value: Any) -> str:
    if name == "bound":
        return f'<td class="number">{escape(str(value))}</td>'
    if name == "verdict" and value in SYMBOLS:
        return f'<td class="{value}">{SYMBOLS[value]}</td>'
    if "residual" in name and isinstance(value, float) and not math.isnan(value):
        return f'<td class="number">{value:+.1%}</td>'
    if isinstance(value, float):
        return f'<td class="number">{"–" if math.isnan(value) else format(value, ".4g")}</td>'
    return f"<td{' class=number' if isinstance(value, int) else ''}>{escape(str(value))}</td>"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", str(value))]
    return rows


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #d5d5d5; --quiet: #5f5f5f; --tint: #f5f6f8;
  --good: #00694b; --bad: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181b; --line: #3a3d42; --quiet: #a9adb3;
  --tint: #202328; --good: #4cc9a0; --bad: #ff9d66; } }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
.verdict { font-size: 1.15rem; padding: .8rem 1rem; background: var(--tint); border-left: .4rem solid var(--good); }
.verdict.fail { border-left-color: var(--bad); }
.scroll { overflow-x: auto; } .drawing { background: #fff; } .drawing svg { min-width: 44rem; width: 100%; height:
  auto; }
figure { margin: 1rem 0; } figcaption { color: var(--quiet); font-size: .9rem; }
table { border-collapse: collapse; font-size: .875rem; } th, td { padding: .25rem .6rem; text-align: left;
  vertical-align: top;
  border-bottom: 1px solid var(--line); } th { background: var(--tint); }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.pass, td.fail { white-space: nowrap; font-weight: 600; color: var(--good); } td.fail { color: var(--bad); }
details { margin: .8rem 0; border: 1px solid var(--line); padding: .4rem .8rem; } summary { cursor: pointer;
  font-weight: 600; }
pre { overflow-x: auto; font-size: .8rem; } :focus-visible { outline: 3px solid #56b4e9; outline-offset: 2px; }
@media print { details { border: 0; } .drawing svg { min-width: 0; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="verdict $verdict">$first</p>
<ul>$summary</ul>
<h2>Checks</h2>
<p>Bounds were fixed in code before the runs. Residual = predicted/measured &minus; 1.</p>
$checks
$sections
<section><h2>Recipes</h2><p>What each prediction was made from, with initial norms as measured before step
  0.</p>$recipes</section>
<section><h2>Environment</h2>$environment</section>
</main>
</body>
</html>
"""
