"""Demonstrations as CSV files that hold all that is needed to draw them again, and the table of errors."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from empirics.files import write_atomic
from paper.laws.demonstration import Demonstration, Pair

RESULTS = Path(__file__).parents[1] / "results" / "laws"
"""Where the tables are."""
_WORDS = ("law", "setting", "x_label", "log_x", "log_y", "note")
_NUMBERS = ("x", "predicted", "measured", "stderr")
_ERRORS = ("law", "worst", "stderr", "median", "bar", "inside", "quantity", "series", "seconds", "seed")


def write(demonstration: Demonstration, folder: Path = RESULTS) -> Path:
    """Write a demonstration: a commented line a property, then columns x, series, predicted, measured, stderr, error.

    Args:
        demonstration: What to write.
        folder: Where to.

    Returns:
        The file.
    """
    head = {name: getattr(demonstration, name) for name in _WORDS}
    head["series"] = [[p.name, p.quantity, p.bar, p.absolute] for p in demonstration.pairs]
    lines = [f"# {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    lines.append("x,series,predicted,measured,stderr,error")
    for pair in demonstration.pairs:
        stderr = np.full(len(demonstration.x), np.nan) if pair.stderr is None else pair.stderr
        rows = zip(demonstration.x, pair.predicted, pair.measured, stderr, pair.error, strict=True)
        for x, predicted, measured, deviation, error in rows:
            spread = "" if np.isnan(deviation) else f"{deviation:.3g}"
            label = json.dumps(_label(pair), ensure_ascii=False)
            lines.append(f"{x:.12g},{label},{float(predicted)!r},{float(measured)!r},{spread},{error:.4g}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{demonstration.law}.csv"
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path


def _label(pair: Pair) -> str:
    return f"{pair.quantity}: {pair.name}" if pair.name else pair.quantity


def read(law: str, folder: Path = RESULTS) -> Demonstration:
    """Read a demonstration that was written.

    Args:
        law: Name of the law.
        folder: Where it is.

    Returns:
        The demonstration; standard errors have three digits.

    Raises:
        FileNotFoundError: If it was never written.
    """
    text = (folder / f"{law}.csv").read_text()
    head = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        name, _, value = line[2:].partition(": ")
        head[name] = json.loads(value)
    body = text[text.index("x,series") :]
    frame = pd.read_csv(StringIO(body), dtype=str, keep_default_na=False)
    numbers = {name: frame[name].replace("", "nan").to_numpy(np.float64) for name in _NUMBERS}  # exact, from text
    size = len(frame) // len(head["series"])
    pairs = []
    for i, (name, quantity, bar, absolute) in enumerate(head["series"]):
        _, predicted, measured, stderr = (column[i * size : (i + 1) * size] for column in numbers.values())
        pairs.append(
            Pair(name, quantity, predicted, measured, None if np.isnan(stderr).all() else stderr, bar, absolute)
        )
    x = numbers["x"][:size]
    return Demonstration(x=x, pairs=tuple(pairs), **{name: head[name] for name in _WORDS})


def summary(demonstration: Demonstration, seconds: float, seed: int) -> dict[str, object]:
    """One row of the table of errors: the point that is worst in units of its bar.

    Args:
        demonstration: The demonstration.
        seconds: Processor time that it took.
        seed: Of its random numbers.

    Returns:
        law, worst (absolute value of the error), stderr (of it; empty where nothing is random), median (over all points
        of the worst series), bar, inside ("yes" or "no", for every point of every series), quantity and series of the
        worst, seconds, seed.
    """
    pair, at = demonstration.worst
    spread = pair.error_stderr
    return {
        "law": demonstration.law,
        "worst": f"{abs(pair.error[at]):.3g}",
        "stderr": "" if spread is None else f"{spread[at]:.2g}",
        "median": f"{np.median(np.abs(pair.error)):.3g}",
        "bar": f"{pair.bar:g}",
        "inside": "yes" if demonstration.inside else "no",
        "quantity": pair.quantity,
        "series": pair.name,
        "seconds": f"{seconds:.1f}",
        "seed": seed,
    }


def read_errors(folder: Path = RESULTS) -> pd.DataFrame:
    """The table of errors, a row a law.

    Args:
        folder: Where it is.

    Returns:
        Columns law, worst, stderr, median, bar, inside, quantity, series, seconds, seed; empty if there is none.
    """
    path = folder / "errors.csv"
    if not path.exists():
        return pd.DataFrame({name: [] for name in _ERRORS}, dtype=str)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_error(row: dict[str, object], folder: Path = RESULTS) -> None:
    """Replace or add one row of the table of errors.

    Args:
        row: What `summary` gives.
        folder: Where the table is.
    """
    table = read_errors(folder)
    table = pd.concat([table[table["law"] != row["law"]], pd.DataFrame([row])]).sort_values("law")
    write_atomic(folder / "errors.csv", table.to_csv(index=False, columns=list(_ERRORS)).encode())
