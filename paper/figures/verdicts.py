"""Captions and checks.json: every claim with its number, its seeds, its runs, its command."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from empirics.files import write_atomic
from paper.figures import NAMES, load
from paper.figures.build import RESULTS, Outcome, missing, up_to_date
from paper.figures.setups import located, seconds
from paper.figures.spec import Spec
from paper.figures.table import read_table


def caption(outcome: Outcome, scale: str) -> str:
    """The caption, with every number from the table.

    Args:
        outcome: The figure.
        scale: The scale.

    Returns:
        Claim, what is drawn, measured numbers, seeds, scale, command.
    """
    figure, rows = outcome.spec, outcome.table.rows
    seeds = sorted({int(seed) for seed in rows["seed"]}) if "seed" in rows else []
    parts = [figure.statement, figure.drawn, *(f"{claim.sentence()}." for claim in outcome.claims)]
    if seeds:
        parts.append(f"n = {len(seeds)} seeds ({', '.join(map(str, seeds))}), intervals of 95 %.")
    return " ".join([*parts, f"Scale {scale}. {command(figure, scale)}"])


def command(figure: Spec, scale: str) -> str:
    """The command that makes the figure.

    Args:
        figure: The figure.
        scale: The scale.

    Returns:
        The command line.
    """
    needs = any(located(config, "parquet:-") is not config for config in figure.configs(scale))
    return f"decaylab figure {figure.name} --scale {scale}" + (" --data parquet:DIR" if needs else "")


def write_checks(outcomes: Sequence[Outcome], *, scale: str, results: Path = RESULTS) -> Path:
    """Write the outcomes into the scale's checks.json; other figures' entries stay.

    Args:
        outcomes: The figures.
        scale: The scale.
        results: Folder of results.

    Returns:
        The file.
    """
    path = results / scale / "checks.json"
    entries = read_checks(scale, results=results)
    for outcome in outcomes:
        entries[outcome.spec.name] = entry(outcome, scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"scale": scale, "figures": dict(sorted(entries.items()))}, indent=1, ensure_ascii=False)
    write_atomic(path, text + "\n")
    return path


def read_checks(scale: str, *, results: Path = RESULTS) -> dict[str, Any]:
    """Entries of the scale's checks.json.

    Args:
        scale: The scale.
        results: Folder of results.

    Returns:
        By figure: claim, verdict, caption, command, checks, runs, environments; empty if there is no file.
    """
    path = results / scale / "checks.json"
    return json.loads(path.read_text())["figures"] if path.exists() else {}


def entry(outcome: Outcome, scale: str) -> dict[str, Any]:
    """A figure's entry in checks.json.

    Args:
        outcome: The figure.
        scale: The scale.

    Returns:
        JSON values.
    """
    figure, table = outcome.spec, outcome.table
    hashes = {config.directory: config.hash for config in figure.configs(scale)}
    return {
        "statement": figure.statement,
        "origin": figure.origin,
        "verdict": outcome.verdict,
        "caption": caption(outcome, scale),
        "command": command(figure, scale),
        "checks": [plain(claim.row()) for claim in outcome.claims],
        "seeds": sorted({int(seed) for seed in table.rows["seed"]}) if "seed" in table.rows else [],
        "missing": [config.directory for config in outcome.missing],
        "runs": {name: {"config_hash": hashes[name], **origin} for name, origin in table.runs.items()},
        "environments": list(table.environments),
        "inputs": table.inputs,
    }


def plain(value: Any) -> Any:
    """JSON values without nan and infinities, which become null.

    Args:
        value: JSON values.

    Returns:
        The same, fit for any JSON reader.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def overview(*, scale: str, results: Path = RESULTS) -> pd.DataFrame:
    """State of all figures.

    Args:
        scale: The scale.
        results: Folder of results.

    Returns:
        Columns figure, origin, state (complete, partial, none, or - if it is not made at this scale), runs (those in
        the table, of all), minutes (about, of one core, for what is missing), verdict (the last one), statement.
    """
    last, rows = read_checks(scale, results=results), []
    for name in NAMES:
        each = load(name)
        if scale in each.scales:
            table = read_table(results / scale / f"{name}.parquet")
            every, left = each.configs(scale), missing(each, table, scale)
            there = table is not None and not left if every else up_to_date(each, table, scale)
            state = "complete" if there else "partial" if len(left) < len(every) else "none"
            runs, cost = f"{len(every) - len(left)}/{len(every)}", math.ceil(sum(map(seconds, left)) / 60)
        else:
            state, runs, cost = "-", "-", 0
        verdict = last.get(name, {}).get("verdict", "-")
        rows.append((name, each.origin, state, runs, cost, verdict, each.statement))
    return pd.DataFrame(rows, columns=["figure", "origin", "state", "runs", "minutes", "verdict", "statement"])
