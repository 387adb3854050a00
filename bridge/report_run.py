"""One run as one HTML file: summary, interactive charts, what-if, verdicts, audit, recipe, environment, citations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bridge.compare import Comparison, compare
from bridge.extras import extra
from bridge.reasons import Reason, reasons, reasons_table
from bridge.report_charts import LABELS, as_json, charts, library
from bridge.report_data import pack, predicted, thinned
from bridge.report_summary import summary
from bridge.report_whatif import FACTORS, Grid, gradient_sizes, what_if
from empirics.files import write_atomic
from empirics.records import Record
from theory.advice import warnings_for
from theory.citations import citations
from theory.errors import InputError
from theory.predict import predict
from theory.recipe import Recipe


class _Loaded(Record):
    """A record whose table is read once."""

    @cached_property
    def _table(self) -> pd.DataFrame:
        return super().metrics()

    def metrics(self) -> pd.DataFrame:
        return self._table


def run_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of one run: one file that refers to nothing outside itself.

    Args:
        run: A run directory with a recipe.
        out: The HTML file; report.html in the run directory if omitted.

    Returns:
        Its path.

    Raises:
        InputError: If it is no run directory, holds no recipe or nothing measured, or Bokeh or Jinja2 is missing.
    """
    record = _Loaded(run)
    description, recipe = record.description, record.recipe
    if recipe is None:
        raise InputError(f"{record.name} holds no recipe (it was trained without a prediction): nothing to report on.")
    stored = record.prediction()
    measured = set(record.metrics()["quantity"].unique())
    if "norm" not in measured:
        raise InputError(f"{record.name} holds no norms: they were not measured, or the run has not begun.")
    names = _names(record, recipe, stored)
    grid = what_if(recipe, gradient_sizes(record, recipe))
    comparison = _compared(record, stored, measured)
    found = reasons(record, comparison) if comparison is not None else []
    table = None if comparison is None else comparison.table()
    strongest = max(recipe.groups, key=recipe.decay_of)
    prediction = predict(replace(recipe, groups=(strongest,)))  # its laws are those of all
    text = _template().render(
        title=record.name,
        css=_text("run.css"),
        script=_text("run.js"),
        library=library(),
        summary=summary(record, recipe, table, found, grid),
        layers=layers(names),
        factors=FACTORS,
        middle=FACTORS.index(1.0),
        assumed=_assumed(grid),
        steps=recipe.steps,
        data=as_json(_data(record, recipe, stored, names, grid)),
        figures=as_json(charts(recipe.steps)),
        verdict_note=_verdict_note(comparison),
        verdicts=_verdicts(table, found),
        audit=_table("Audit", _audit(recipe)),
        notes=_notes(record, recipe),
        recipe=recipe.to_json(indent=1),
        configuration=_table("Configuration", _flat(description.get("config", {}))),
        laws=prediction.laws,
        assumptions=prediction.assumptions,
        citations=citations(prediction),
        environment=_table("Environment", _flat(description.get("environment", {}))),
    )
    path = run / "report.html" if out is None else out
    write_atomic(path, text)
    return path


def layers(names: Sequence[str]) -> list[tuple[str, list[tuple[int, str]]]]:
    """Tensors sorted by layer: what comes before the last number in their names, or before the last part.

    Args:
        names: Tensors' names.

    Returns:
        Layers in order, each with positions and names.

    Example:
        >>> layers(["wte.weight", "h.0.q.weight", "h.0.v.weight"])
        [('wte', [(0, 'wte.weight')]), ('h.0', [(1, 'h.0.q.weight'), (2, 'h.0.v.weight')])]
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for index, name in enumerate(names):
        parts = name.split(".")
        numbers = [i for i, part in enumerate(parts) if part.isdigit()]
        layer = ".".join(parts[: numbers[-1] + 1] if numbers else parts[:-1]) or name
        found.setdefault(layer, []).append((index, name))
    return list(found.items())


def _names(record: Record, recipe: Recipe, stored: pd.DataFrame | None) -> list[str]:
    first = [group.name for group in recipe.groups]
    others = [] if stored is None else stored["group"].unique().tolist()
    return list(dict.fromkeys([*first, *others, *record.pivot("norm").columns]))


def _compared(record: Record, stored: pd.DataFrame | None, measured: set[str]) -> Comparison | None:
    try:
        return (
            compare(record, quantities=[q for q in ("norm", "angle") if q in measured]) if stored is not None else None
        )
    except InputError:  # nothing in common
        return None


def _data(
    record: Record, recipe: Recipe, stored: pd.DataFrame | None, names: Sequence[str], grid: Grid
) -> dict[str, Any]:
    offset = 0 if stored is None or stored.empty else int(stored["step"].min())
    quantities: dict[str, Any] = {}
    other = grid.packed()
    for quantity in LABELS:
        steps: dict[str, list[int]] = {"measured": [], "predicted": [], "what-if": (grid.steps + offset).tolist()}
        curves = {"what-if": other["curves"][quantity]}
        try:
            steps["measured"], values = thinned(record.pivot(quantity).reindex(columns=names))
            curves["measured"] = pack(values)
        except InputError:  # not measured
            pass
        if stored is not None:
            steps["predicted"], parts = predicted(stored, quantity, names)
            curves |= {key: pack(value) for key, value in parts.items()}
        quantities[quantity] = {"steps": steps, "curves": curves}
    optimizer = recipe.optimizer
    head = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "steps": recipe.steps}
    return head | {"factors": list(FACTORS), "predicted": len(recipe.groups), "quantities": quantities}


def _assumed(grid: Grid) -> str:
    if grid.probe is None:
        return ""
    return " Gradient sizes (c2) are those measured in this run; at other settings they may differ."


def _verdict_note(comparison: Comparison | None) -> str:
    if comparison is None:
        return "Nothing that was predicted was measured: there is nothing to compare."
    return (
        "Residual = predicted/measured - 1, root mean squares over the whole run; the band's own bounds are lowest and "
        "highest. In band: at least 95 % of the run's windows lie inside."
    )


def _verdicts(table: pd.DataFrame | None, found: Sequence[Reason]) -> list[dict[str, Any]]:
    if table is None:
        return []
    parts = []
    if found:
        caption = (
            "The assumption that was most likely violated; explained: share of the residual that its number removes."
        )
        parts.append(_table(f"Why not ({len(found)})", reasons_table(list(found)), caption))
    columns = ["tensor", "predicted", "measured", "residual", "median", "p95", "worst", "lowest", "highest", "verdict"]
    for quantity, rows in table.groupby("quantity", sort=False):
        inside = int((rows["verdict"] == "in band").sum())
        title = f"{quantity}: {inside} of {len(rows)} in band"
        parts.append(_table(title, rows[columns], "median, p95 and worst: absolute residuals over the windows."))
    return parts


def _audit(recipe: Recipe) -> pd.DataFrame:
    rows = [
        {
            "tensor": group.name,
            "shape": "x".join(map(str, group.shape)),
            "lr": recipe.optimizer.lr * group.lr_factor,
            "weight_decay": recipe.decay_of(group),
            "decayed": "yes" if recipe.decay_of(group) > 0 else "no",
            "convention": recipe.optimizer.decay.value if recipe.decay_of(group) > 0 else "none",
            "scale_invariant": group.scale_invariant or "no, or not tested",
            "initial norm": np.nan if group.norm0 is None else group.norm0,
        }
        for group in recipe.groups
    ]
    return pd.DataFrame(rows)


def _notes(record: Record, recipe: Recipe) -> list[str]:
    notes = list(record.notes)
    if record.error:
        notes.append(record.error)
    if record.divergence:
        notes.append(f"The run diverged at step {record.divergence.get('step')}: {record.divergence.get('trigger')}.")
    return notes + list(warnings_for(recipe, {}))


def _table(title: str, frame: pd.DataFrame, caption: str = "") -> dict[str, Any]:
    rows = [[_cell(str(k), x) for k, x in row.items()] for row in frame.to_dict("records")]
    return {"title": title, "caption": caption, "columns": list(frame.columns), "rows": rows}


def _cell(name: str, value: Any) -> tuple[str, str]:
    """Class and text of a cell."""
    if name == "sentence":
        return "words", str(value)
    if name == "verdict":
        return ("in", f"✓ {value}") if value == "in band" else ("out", f"✗ {value}")
    if not isinstance(value, float):
        return "", str(value)
    if math.isnan(value):
        return "number", "–"
    percent = name in ("residual", "median", "p95", "worst", "lowest", "highest", "explained")
    return "number", f"{value:+.1%}" if percent else f"{value:.4g}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> pd.DataFrame:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += list(_flat(value, f"{prefix}{key}.").itertuples(index=False, name=None))
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return pd.DataFrame(rows, columns=["what", "value"])


def _text(name: str) -> str:
    return (resources.files("bridge") / "templates" / name).read_text()


def _template() -> Any:
    jinja2 = extra("jinja2", "report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_text("run.html"))
