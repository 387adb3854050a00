"""Claims in LaTeX: every number as a macro, every figure with its verdict, and the table of all checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paper.manuscript_results import SCALES, Result, sections
from paper.manuscript_tex import bound, code, escape, interval, number, sentence

LISTED = 6
"""Most checks that a caption lists one by one; longer lists are in the table of all checks alone."""
WORDS = {"pass": "holds", "fail": r"\textbf{fails}", "undecided": r"\textbf{undecided} for lack of seeds"}
STATES = {"pass": "holds", "fail": r"\textbf{fails}"} | {state: state for state in ("undecided", "incomplete")}
DEFINITIONS = r"""% Written by `decaylab paper` from committed results. Do not edit.
\newcommand{\setresult}[2]{\expandafter\gdef\csname result@#1\endcsname{#2}}
% A result by its key; one that does not exist says so.
\newcommand{\result}[1]{\ifcsname result@#1\endcsname\csname result@#1\endcsname\else\textit{(not run)}\fi}
\newcommand{\finding}[1]{\result{#1.finding}}
\newcommand{\figures}[1]{\result{#1.figures}}
\newcommand{\borneout}[1]{[\texttt{\detokenize{#1}}: \result{#1.state}]}
"""


def define(key: str, text: str) -> str:
    """A line that defines a result.

    Args:
        key: Its key.
        text: LaTeX source.

    Returns:
        LaTeX source.
    """
    return rf"\setresult{{{key}}}{{{text}}}"


def measured(check: Mapping[str, Any]) -> str:
    """Value and interval of a check.

    Args:
        check: As in checks.json.

    Returns:
        LaTeX source.
    """
    return f"{number(check['measured'])} {interval(check['low'], check['high'])}".strip()


def told(name: str, check: Mapping[str, Any]) -> str:
    """A check in words, linked to its row in the table.

    Args:
        name: The claim's id.
        check: As in checks.json.

    Returns:
        LaTeX source.
    """
    seeds = f"{check['seeds']} seed{'s' if check['seeds'] != 1 else ''}"
    numbers = f"{measured(check)}, bound {bound(check['relation'], check['bound'])}, {seeds}: {WORDS[check['verdict']]}"
    note = f" ({escape(check['note'])})" if check["note"] else ""
    return rf"\hyperlink{{claim:{name}}}{{{code(name)}}} {escape(check['claim'])}: {numbers}{note}"


def verdict(result: Result) -> str:
    """What became of a figure, in words.

    Args:
        result: The figure.

    Returns:
        LaTeX source, no full stop.
    """
    count, total = len(result.of("pass")), len(result.checks)
    failed, open_ = result.of("fail"), result.of("undecided")
    text = f"{count} of {total} check{'s' if total != 1 else ''} hold{'s' if 1 in (count, total) else ''}"
    text += f"; failed: {', '.join(map(code, failed))}" if failed else ""
    text += f"; undecided for lack of seeds: {', '.join(map(code, open_))}" if open_ else ""
    missing = len(result.entry["missing"])
    runs = f"; {missing} run{'s are' if missing != 1 else ' is'} missing" if missing else ""
    return {
        "pass": f"holds at scale {result.scale} ({text})",
        "fail": rf"\textbf{{does not hold as stated}} at scale {result.scale} ({text})",
        "undecided": rf"is \textbf{{undecided}} at scale {result.scale} ({text})",
        "incomplete": rf"is \textbf{{incomplete}} at scale {result.scale} and no claim ({text}{runs})",
    }[result.state]


def finding(name: str, found: Iterable[Result]) -> str:
    """The statement of a figure with its verdict at every scale at which it was made.

    Args:
        name: The figure.
        found: Its results.

    Returns:
        LaTeX source, whole sentences; no statement where nothing was run.
    """
    results = list(found)
    if not results:
        return f"({code(name)}: not run at this scale.)"
    said = "; it ".join(rf"{verdict(result)}, Figure~\ref{{fig:{result.key}}}" for result in results)
    return rf"\emph{{{escape(sentence(results[0].entry['statement']))}}} This {said}."


def figure(result: Result) -> str:
    """A figure with its caption: statement, verdict, what is drawn, checks, scale, seeds, command.

    Args:
        result: The figure.

    Returns:
        LaTeX source.
    """
    names = [f"{result.key}.{i}" for i in range(1, len(result.checks) + 1)]
    shown = [
        told(name, check)
        for name, check in zip(names, result.checks, strict=True)
        if len(names) <= LISTED or check["verdict"] != "pass"
    ]
    rest = r"The remaining checks are in Table~\ref{tab:claims}." if len(shown) < len(names) else ""
    seeds = ", ".join(map(str, result.entry["seeds"]))
    head = escape(sentence(result.entry["statement"]))
    parts = [
        rf"\textbf{{{head}}} This {verdict(result)}.",
        escape(sentence(result.drawn)) if result.drawn else "",
        f"Checks: {'; '.join(shown)}." if shown else "",
        rest,
        f"Seeds {seeds}, intervals of 95\\,\\%, scale {result.scale}." if seeds else f"Scale {result.scale}.",
        f"{code(result.entry['command'])}",
    ]
    path = f"results/{result.scale}/{result.name}.pdf"
    return "\n".join(
        [
            r"\begin{figure}[tbp]",
            r"\centering",
            rf"\IfFileExists{{{path}}}{{\includegraphics[width=\linewidth,height=0.6\textheight,"
            rf"keepaspectratio]{{{path}}}}}{{\fbox{{The drawing is missing.}}}}",
            rf"\caption[{code(result.key)}]{{{' '.join(part for part in parts if part)}}}",
            rf"\label{{fig:{result.key}}}",
            r"\end{figure}",
        ]
    )


def figures(found: Sequence[Result]) -> str:
    """The file of figures: for each name what the text inserts, whether it was run or not.

    Args:
        found: From `collect`.

    Returns:
        LaTeX source.
    """
    lines = ["% Written by `decaylab paper` from committed results. Do not edit."]
    for section, names in sections(found).items():
        for name in names:
            mine = [result for result in found if result.name == name]
            lines.append(define(f"{name}.figures", "\n".join(["%", *map(figure, mine), ""]) if mine else ""))
        lines.append(define(f"{section}.figures", "".join(rf"\figures{{{name}}}" for name in names)))
        lines.append(define(f"{section}.findings", " ".join(rf"\finding{{{name}}}" for name in names)))
    return "\n".join(lines) + "\n"


def macros(found: Sequence[Result]) -> list[str]:
    """Definitions of every number of the figures.

    Args:
        found: From `collect`.

    Returns:
        Lines.
    """
    lines = []
    for result in found:
        for i, check in enumerate(result.checks, start=1):
            name = f"{result.key}.{i}"
            values = {
                "value": number(check["measured"]),
                "interval": interval(check["low"], check["high"]) or "--",
                "bound": bound(check["relation"], check["bound"]),
                "seeds": number(check["seeds"]),
                "verdict": WORDS[check["verdict"]],
                "told": told(name, check),
            }
            lines += [define(f"{name}.{field}", text) for field, text in values.items()]
        lines.append(define(f"{result.key}.verdict", verdict(result)))
        lines.append(define(f"{result.key}.command", code(result.entry["command"])))
    for name in (name for names in sections(found).values() for name in names):
        mine = [result for result in found if result.name == name]
        lines.append(define(f"{name}.finding", finding(name, mine)))
        states = "; ".join(f"{STATES[result.state]} at scale {result.scale}" for result in mine)
        lines.append(define(f"{name}.state", states or "not run"))
    summaries = [summary(scale, [result for result in found if result.scale == scale]) for scale in SCALES]
    lines.append(define("scales.summary", " ".join(filter(None, summaries)) or "No figure has been made."))
    return lines


def summary(scale: str, here: Sequence[Result]) -> str:
    """How many figures and checks there are at a scale, and what became of them.

    Args:
        scale: The scale.
        here: Its figures.

    Returns:
        LaTeX source, a sentence; empty if there are none.
    """
    if not here:
        return ""
    counts = {state: sum(len(result.of(state)) for result in here) for state in WORDS}
    held = sum(result.state == "pass" for result in here)
    return (
        f"At scale {scale} {len(here)} figure{'s have' if len(here) != 1 else ' has'} been made, with "
        f"{sum(counts.values())} checks whose bounds were fixed before: {counts['pass']} hold, {counts['fail']} fail, "
        f"{counts['undecided']} are undecided; the statements of {held} figure{'s' if held != 1 else ''} hold entirely."
    )


def table(found: Sequence[Result]) -> str:
    """The table of all checks.

    Args:
        found: From `collect`.

    Returns:
        LaTeX source.
    """
    head = r"claim & measured, 95\,\% interval & bound & seeds & verdict \\ \hline"
    lines = [
        "% Written by `decaylab paper` from committed results. Do not edit.",
        r"{\footnotesize",
        r"\begin{longtable}{L{0.42\linewidth}L{0.21\linewidth}L{0.08\linewidth}rL{0.09\linewidth}}",
        r"\caption{Every check of every figure. A check holds if the mean over at least three seeds meets the bound",
        r"and, where the effect could be absent, the interval excludes its absence.}\label{tab:claims}\\",
        r"\hline",
        head + r"\endfirsthead",
        r"\hline",
        head + r"\endhead",
    ]
    for result in found:
        title = rf"\textbf{{{code(result.key)}}}, {verdict(result)}: {code(result.entry['command'])}"
        lines.append(rf"\multicolumn{{5}}{{p{{0.95\linewidth}}}}{{{title}}} \\*")
        for i, check in enumerate(result.checks, start=1):
            name = f"{result.key}.{i}"
            note = f" ({escape(check['note'])})" if check["note"] else ""
            first = rf"\leavevmode\hypertarget{{claim:{name}}}{{.{i}}} {escape(check['claim'])}{note}"
            cells = (first, measured(check), bound(check["relation"], check["bound"]), number(check["seeds"]))
            lines.append(rf"{' & '.join(cells)} & {WORDS[check['verdict']]} \\")
        lines.append(r"\hline")
    return "\n".join([*lines, r"\end{longtable}", "}"]) + "\n"
