"""How every figure looks: sizes, colours, type, and files that are byte for byte the same each time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from empirics.files import write_atomic

ONE_COLUMN = 3.35
"""Width of a one-column figure, inches."""
TWO_COLUMN = 7.0
"""Width of a figure across both columns, inches."""

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
"""Okabe and Ito's colours, distinguishable with any colour vision (jfly.uni-koeln.de/color)."""

INK = "#1A1A1A"
"""What was measured, and all text."""
QUIET = "#6F6F6F"
"""Axes, ticks and remarks."""

RC: dict[Any, Any] = {
    "font.family": "STIXGeneral",  # comes with matplotlib: the same glyphs on every machine
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
    "lines.linewidth": 1.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "savefig.facecolor": "white",
    "savefig.dpi": 300,
    "svg.fonttype": "path",
    "svg.hashsalt": "decaylab",
    "pdf.fonttype": 42,
}
"""matplotlib's settings inside `style()`."""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style inside the block; the caller's settings come back after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def to_svg(figure: Figure) -> str:
    """A figure as SVG that can stand in a page beside others.

    Args:
        figure: The figure.

    Returns:
        An `<svg>` element: text as outlines, no date, no doctype; ids begin with a hash of the drawing, so that those
        of different figures differ and those of the same figure do not change.
    """
    buffer = StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    svg = text[text.index("<svg") :].strip()
    svg = re.sub(
        r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg
    )  # a hundredth of a point will do
    prefix = f"f{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)


def save(figure: Figure, path: Path | str) -> tuple[Path, Path]:
    """Write a figure as PDF and PNG, without dates or versions: equal figures give equal files.

    Args:
        figure: The figure.
        path: Where to, without suffix.

    Returns:
        Paths of the PDF and the PNG.
    """
    silent = {"pdf": ("Creator", "Producer", "CreationDate"), "png": ("Software",)}
    written = []
    for suffix, keys in silent.items():
        buffer = BytesIO()
        with style():
            figure.savefig(buffer, format=suffix, metadata=dict.fromkeys(keys))
        written.append(Path(f"{path}.{suffix}"))
        write_atomic(written[-1], buffer.getvalue())
    return written[0], written[1]
