"""The laws in LaTeX: their accuracy against simulation, their accuracy on real runs, their proofs, their sources."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from paper.laws.store import RESULTS as LAWS
from paper.laws.store import read, read_errors
from paper.manuscript_claims import define
from paper.manuscript_results import BENCHMARKS, benchmark
from paper.manuscript_tex import bound, code, escape, number
from paper.pages import CHAPTERS, contents
from theory.bibliography import DECAYLAB, ORIGINAL, PAPERS, Paper
from theory.citations import sources
from theory.derivations import derive
from theory.derivations.derivation import tex

HEAD = "% Written by `decaylab paper` from committed results. Do not edit."
PROOFS = (
    "sgd_equilibrium",
    "normalized_momentum_equilibrium",
    "adamw_exponential_lr",
    "gradient_rise",
    "label_noise_excess",
    "least_squares_stationary",
    "rounding_drift_gain",
)
"""Derivations that are printed in full."""


def cited(law: str) -> str:
    """Who found a law.

    Args:
        law: Its name.

    Returns:
        LaTeX source: citations, and whether the law or its exact form was derived here.
    """
    papers = sources(law)
    keys = ",".join(paper.key for paper in papers if paper is not DECAYLAB)
    parts = ([rf"\cite{{{keys}}}"] if keys else []) + (["here"] if DECAYLAB in papers else [])
    return ", ".join(parts)


def macros(folder: Path = LAWS, benchmarks: Path = BENCHMARKS) -> list[str]:
    """Definitions of every number about laws and of the measurements that the text quotes.

    Args:
        folder: Where the table of errors is.
        benchmarks: Folder of measurements.

    Returns:
        Lines.
    """
    errors = read_errors(folder)
    inside = int((errors["inside"] == "yes").sum())
    lines = [
        define("laws.count", number(len(errors))),
        define("laws.inside", number(inside)),
        define("laws.missed", number(len(errors) - inside)),
        define("laws.missedlist", ", ".join(map(code, errors[errors["inside"] != "yes"]["law"])) or "none"),
    ]
    for _, row in errors.iterrows():
        lines.append(define(f"law.{row['law']}.worst", number(row["worst"])))
        lines.append(define(f"law.{row['law']}.bar", number(row["bar"])))
    checks = benchmark("validate", benchmarks)["checks"]
    lines.append(define("validate.count", number(len(checks))))
    lines.append(define("validate.held", number(sum(check["passed"] == check["seeds"] for check in checks))))
    for name, check in named(checks).items():
        lines.append(define(f"validate.{name}.mean", number(check["mean"])))
        lines.append(define(f"validate.{name}.bound", bound(*split(check["bound"]))))
    rotation, watch = benchmark("rotation_cost", benchmarks), benchmark("watch_cost", benchmarks)
    lines += [
        define("cost.rotation", percent(rotation["every_1"]["median"] - 1)),
        define("cost.watch", percent(watch["watch_every_10"]["median"] - 1)),
        define("cost.large", percent(watch["gpt2_124m"]["share_of_ten_steps"])),
    ]
    return lines


def percent(share: float) -> str:
    r"""A share in per cent, two digits.

    Args:
        share: The share.

    Returns:
        LaTeX source.

    Example:
        >>> print(percent(0.0227))
        $2.3$\,\%
    """
    return rf"{number(100 * share, 2)}\,\%"


def split(text: str) -> tuple[str, str]:
    """Relation and number of a bound such as "<= 0.15".

    Args:
        text: The bound.

    Returns:
        Both.
    """
    relation, _, value = text.partition(" ")
    return relation, value


def named(checks: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The main job's checks by their place.

    Args:
        checks: As the main job repeats them over seeds.

    Returns:
        By "law.1", "law.2" ... in order, blanks and capitals gone.
    """
    out: dict[str, Mapping[str, Any]] = {}
    for check in checks:
        law = re.sub(r"[^a-z0-9_]+", "-", check["law"].lower())
        place = 1 + sum(key.rpartition(".")[0] == law for key in out)
        out[f"{law}.{place}"] = check
    return out


def laws_table(folder: Path = LAWS) -> str:
    """The table of laws, by chapter, with worst error, bar and source.

    Args:
        folder: Where the table of errors is.

    Returns:
        LaTeX source.
    """
    errors = read_errors(folder).set_index("law")
    head = r"law & worst error & bar & where & source \\ \hline"
    lines = [
        HEAD,
        r"{\footnotesize",
        r"\begin{longtable}{L{0.25\linewidth}L{0.17\linewidth}L{0.08\linewidth}L{0.25\linewidth}L{0.09\linewidth}}",
        r"\caption{Every law against a simulation that shares no code with it, at the setting of its page in the",
        r"documentation: largest error over the sweep (with the standard error of the simulation), and the accuracy",
        r"promised before.}\label{tab:laws}\\",
        r"\hline",
        head + r"\endfirsthead",
        r"\hline",
        head + r"\endhead",
    ]
    for key, laws in contents().items():
        rows = [law for law in laws if law in errors.index]
        if rows:
            lines.append(rf"\multicolumn{{5}}{{l}}{{\textit{{{escape(CHAPTERS[key][0])}}}}} \\*")
        lines += [law_row(law, errors.loc[law], folder) for law in rows]
    return "\n".join([*lines, r"\hline", r"\end{longtable}", "}"]) + "\n"


def law_row(law: str, row: pd.Series, folder: Path = LAWS) -> str:
    """A row of the table of laws, and below it why the law misses its bar, if it does.

    Args:
        law: Its name.
        row: Of the table of errors.
        folder: Where its demonstration is.

    Returns:
        LaTeX source.
    """
    size = number(row["worst"]) + (rf" $\pm$ {number(row['stderr'])}" if row["stderr"] else "")
    size += "" if row["inside"] == "yes" else r" \textbf{missed}"
    where = escape(", ".join(part for part in (row["quantity"], row["series"]) if part))
    lines = [rf"{code(law)} & {size} & {number(row['bar'])} & {where} & {cited(law)} \\"]
    note = "" if row["inside"] == "yes" else read(law, folder).note
    if note:
        lines.append(rf"\multicolumn{{5}}{{p{{0.95\linewidth}}}}{{\textit{{Why:}} {escape(note)}}} \\")
    return "\n".join(lines)


def validate_table(benchmarks: Path = BENCHMARKS) -> str:
    """The table of the main job: predictions against measurements on real data.

    Args:
        benchmarks: Folder of measurements.

    Returns:
        LaTeX source.
    """
    lines = [
        HEAD,
        r"\begin{table}[tbp]\footnotesize",
        r"\caption{Predictions against measurements on real data, mean and standard error over seeds.",
        rf"Command: {code('decaylab validate --seed SEED')}.}}\label{{tab:validate}}",
        r"\begin{tabular}{L{0.21\linewidth}L{0.33\linewidth}L{0.17\linewidth}lL{0.08\linewidth}}",
        r"\hline",
        r"law & quantity & measured & bound & held \\ \hline",
    ]
    for check in benchmark("validate", benchmarks)["checks"]:
        held = f"{check['passed']} of {check['seeds']}"
        held = held if check["passed"] == check["seeds"] else rf"\textbf{{{held}}}"
        law = code(check["law"]) if "_" in check["law"] else escape(check["law"])
        size = rf"{number(check['mean'])} $\pm$ {number(check['standard_error_over_seeds'], 2)}"
        lines.append(rf"{law} & {escape(check['claim'])} & {size} & {bound(*split(check['bound']))} & {held} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]) + "\n"


def derivations() -> str:
    """Some proofs in full, as sympy carried them out.

    Returns:
        LaTeX source: a paragraph each, labelled proof:LAW.
    """
    lines = [HEAD]
    for law in PROOFS:
        proof = derive(law)
        lines.append(rf"\subsection*{{{code(law)}}}\label{{proof:{law}}}")
        lines.append(ticks(proof.setting))
        for place, step in enumerate(proof.steps, start=1):
            lines.append(rf"\par\noindent\textbf{{{place}.}} {ticks(step.text)}")
            lines += [rf"\wide{{{tex(equation)}}}" for equation in step.equations]
    return "\n".join(lines) + "\n"


def ticks(text: str) -> str:
    """A derivation's sentence: what stands between backticks becomes code.

    Args:
        text: LaTeX source with backticks.

    Returns:
        LaTeX source.
    """
    return re.sub(r"`([^`]*)`", lambda found: code(found[1].replace(r"\_", "_")), text).replace("~", " ")


def references() -> str:
    """The bibliography: every paper behind a law, and the original study.

    Returns:
        BibTeX source; where each is found is also a note, since plain styles print that.
    """
    papers = sorted({*PAPERS.values(), ORIGINAL}, key=lambda paper: paper.key)
    return (
        "\n\n".join(["% Written by `decaylab paper` from theory.bibliography. Do not edit.", *map(entry, papers)])
        + "\n"
    )


def entry(paper: Paper) -> str:
    """A paper's BibTeX entry with a note that says where it is.

    Args:
        paper: The paper.

    Returns:
        BibTeX source.
    """
    note = f"arXiv:{paper.arxiv}" if paper.arxiv else rf"\url{{{paper.url}}}"
    return f"{paper.bibtex()[:-2]}\n  note = {{{note}}},\n}}"
