"""decaylab paper: everything in the paper that depends on results, written from the committed ones, and the PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from empirics.files import write_atomic
from paper.manuscript_claims import DEFINITIONS, figures, macros, table
from paper.manuscript_laws import derivations, laws_table, references, validate_table
from paper.manuscript_laws import macros as law_macros
from paper.manuscript_original import readme
from paper.manuscript_results import BENCHMARKS, DEBIAN, PAPER, RESULTS, Result, collect
from theory.errors import InputError

WAIT = 300
"""Longest that LaTeX may take, seconds."""


@dataclass(frozen=True)
class Manuscript:
    """What was built."""

    found: tuple[Result, ...]
    """Figures with results."""
    files: tuple[Path, ...]
    """What was written."""
    changed: tuple[Path, ...]
    """Those of them whose content is new."""
    pdf: Path | None
    """The PDF; None without LaTeX."""
    note: str
    """Why there is no PDF; empty if there is one."""


def sources(results: Path = RESULTS, benchmarks: Path = BENCHMARKS) -> dict[str, str]:
    """Every generated file.

    Args:
        results: Folder of results.
        benchmarks: Folder of measurements.

    Returns:
        Text by path below `paper/`; depends on nothing but committed results and the theory's own code.

    Raises:
        InputError: If results are missing or damaged.
    """
    found = collect(results)
    lines = [*macros(found), *law_macros(results / "laws", benchmarks)]
    return {
        "generated/macros.tex": DEFINITIONS + "\n".join(lines) + "\n",
        "generated/claims.tex": table(found),
        "generated/figures.tex": figures(found),
        "generated/laws_table.tex": laws_table(results / "laws"),
        "generated/validate_table.tex": validate_table(benchmarks),
        "generated/derivations.tex": derivations(),
        "generated/references.bib": references(),
        "README.md": readme(found),
    }


def build(out: Path = PAPER, *, results: Path = RESULTS, benchmarks: Path = BENCHMARKS) -> Manuscript:
    """Write every generated file, and compile the PDF if LaTeX is there.

    Args:
        out: Where to.
        results: Folder of results.
        benchmarks: Folder of measurements.

    Returns:
        What was built.

    Raises:
        InputError: If results are missing or damaged, or LaTeX fails.
    """
    files, changed = [], []
    for name, text in sources(results, benchmarks).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            write_atomic(path, text.encode())
            changed.append(path)
        files.append(path)
    pdf, note = typeset(out, results)
    return Manuscript(tuple(collect(results)), tuple(files), tuple(changed), pdf, note)


def typeset(
    out: Path, results: Path = RESULTS, environment: Mapping[str, str] | None = None
) -> tuple[Path | None, str]:
    """Compile the PDF from the files in a folder; without LaTeX, say what to install.

    Args:
        out: Where the generated files are, and where the PDF goes.
        results: Folder of results, for the drawings.
        environment: Environment variables; those of this process if omitted.

    Returns:
        The PDF and an empty note, or None and why there is none.

    Raises:
        InputError: If LaTeX fails.
    """
    variables = dict(os.environ if environment is None else environment)
    search = variables.get("PATH", "")
    latexmk, pdflatex, bibtex = (shutil.which(name, path=search) for name in ("latexmk", "pdflatex", "bibtex"))
    if pdflatex is None or (latexmk is None and bibtex is None):
        return None, f"No PDF: LaTeX is not installed; on Debian install {', '.join(DEBIAN)} and repeat the command."
    options = ["-interaction=nonstopmode", "-halt-on-error"]
    once = [pdflatex, *options, "main.tex"]
    steps = [[latexmk, "-pdf", *options, "main.tex"]] if latexmk else [once, [str(bibtex), "main"], once, once]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(PAPER / "main.tex", folder)
        shutil.copytree(out / "generated", folder / "generated")
        # Drawings are named results/SCALE/NAME.pdf; the fixed date makes the PDF a function of its source.
        variables |= {
            "TEXINPUTS": f".:{results.parent}:",
            "SOURCE_DATE_EPOCH": "0",
            "FORCE_SOURCE_DATE": "1",
            "max_print_line": "1000",
        }
        for step in steps:
            done = subprocess.run(step, cwd=folder, env=variables, capture_output=True, timeout=WAIT)
            if done.returncode:
                lines = done.stdout.decode(errors="replace").splitlines()
                first = next((line for line in lines if line.startswith("!")), "no error line")
                raise InputError(f"{Path(step[0]).name} failed on main.tex: {first}")
        pdf = out / "main.pdf"
        write_atomic(pdf, (folder / "main.pdf").read_bytes())
    return pdf, ""
