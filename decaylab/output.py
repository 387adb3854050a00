"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; nan and infinities become null.

    Args:
        value: Dictionaries, lists, numbers, strings, data frames.
    """
    print(json.dumps(_plain(value), indent=1, allow_nan=False))


def print_table(frame: pd.DataFrame, *, title: str | None = None, number: str = ".4g") -> None:
    """Print a data frame as a table that fits the terminal (plain text where there is none).

    Args:
        frame: What to print, without its index.
        title: Line above it.
        number: Format of floats.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value, number) for value in row))
    console.print(table)


def print_lines(lines: Iterable[str], *, bullet: str = "") -> None:
    """Print sentences.

    Args:
        lines: The sentences.
        bullet: Put before each.
    """
    for line in lines:
        print(f"{bullet}{line}")


def _cell(value: Any, number: str) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else format(value, number)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict(orient="records")]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and not math.isfinite(number) else number
