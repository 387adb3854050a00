"""The documentation's page of each law, written from what the law says of itself, its proof and its demonstration."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import docstring_parser

import theory
from paper.laws.store import RESULTS, read, read_errors
from theory.citations import sources
from theory.derivations import DERIVED, Derivation, derive
from theory.derivations.derivation import tex

DOCS = Path(__file__).parents[1] / "docs"
"""Where the site's pages are."""
CHAPTERS = {
    "invariance": ("Scale invariance", "What the loss's indifference to a tensor's scale implies. Exact."),
    "equilibrium": ("Equilibria", ""),
    "trajectory": ("Transients and schedules", ""),
    "departures": ("Where the plain laws stop", ""),
    "equivalence": ("The same run without decay", ""),
    "timescale": (
        "Time scales and transfer",
        "Weights as an average of updates: its memory, and what follows for tuning.",
    ),
    "overtraining": ("Over-training", ""),
    "onepass": ("One pass", ""),
    "precision": ("Low precision", ""),
    "conventions": ("Conventions of decay", "One word, six meanings: what they share is the shrink of a step."),
}
"""Title and opening of each chapter, in reading order; where the opening is empty the package's docstring is it."""
_HOME = {"transfer": "timescale", "convert": "conventions"}
_FILES = (
    *("invariance", "sgd", "decoupled", "adamw", "adamw_gaussian", "adam_l2", "sign", "muon", "hyperball", "cautious"),
    *("correlated", "signal", "relaxation", "closed_form", "gradient_rise", "conventions", "lion", "twin", "timescale"),
    *("transfer", "label_noise", "edge_of_stability", "least_squares", "survival", "walk", "rounding", "stochastic"),
)
"""Files in reading order within their chapter, simple before composed; others come last."""
NOT_LAWS = {"predict"}
"""What `theory` exports besides laws."""


def chapter_of(law: str) -> str:
    """The chapter that a law belongs to: the package, or file, it is written in.

    Args:
        law: Its name.

    Returns:
        A key of `CHAPTERS`.

    Example:
        >>> chapter_of("adamw_equilibrium")
        'equilibrium'
    """
    name = str(getattr(theory, law).__module__).split(".")[1]
    return _HOME.get(name, name)


@cache
def contents() -> dict[str, tuple[str, ...]]:
    """Laws by chapter, in reading order: file by file, and within a file from top to bottom.

    Returns:
        For each chapter its laws.
    """
    laws = [name for name in theory.__all__ if name not in NOT_LAWS]

    def place(law: str) -> tuple[int, str, int]:
        function = getattr(theory, law)
        file = function.__module__.split(".")[-1]
        rank = _FILES.index(file) if file in _FILES else len(_FILES)
        return rank, file, inspect.getsourcelines(function)[1]

    return {key: tuple(sorted((law for law in laws if chapter_of(law) == key), key=place)) for key in CHAPTERS}


def pages() -> dict[str, str]:
    """Every generated page.

    Returns:
        Markdown by path below `docs/`.
    """
    out = {"laws/index.md": _index()}
    for laws in contents().values():
        for law in laws:
            out[f"laws/{law}.md"] = _page(law)
    return out


def _index() -> str:
    errors = read_errors().set_index("law")
    lines = [
        "# The laws",
        "",
        "Every law by the name it has in `theory`, from the ground up. *Worst* is the largest error of its "
        "demonstration: prediction against a simulation that shares no code with it, at the page's setting; *bar* is "
        "the accuracy that was promised before. `python -m paper.laws` redraws the plots, `python -m paper.pages` "
        "rewrites the pages.",
        "",
    ]
    for key, laws in contents().items():
        title, opening = CHAPTERS[key]
        opening = opening or inspect.getdoc(sys.modules[f"theory.{key}"]) or ""
        lines += [f"## {title}", "", opening, "", "| law | what it says | bar | worst |", "|---|---|---|---|"]
        for law in laws:
            bar, worst = "", ""
            if law in errors.index:
                row = errors.loc[law]
                bar, worst = row["bar"], row["worst"] + ("" if row["inside"] == "yes" else " **missed**")
            lines.append(f"| [`{law}`]({law}.md) | {_summary(law)} | {bar} | {worst} |")
        lines.append("")
    return "\n".join(lines)


def _summary(law: str) -> str:
    return _escape((inspect.getdoc(getattr(theory, law)) or "").splitlines()[0])


def _page(law: str) -> str:
    function = getattr(theory, law)
    text = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    proof = derive(law) if law in DERIVED else None
    parts = [f"# {law}", _escape(text.short_description or ""), "## Setting, source and validity"]
    parts += [_escape(text.long_description or "")]
    if proof is not None and proof.result:
        parts += ["## Formula", *(f"$${_word(field)} = {tex(value)}$$" for field, value in proof.result.items())]
        parts += [_legend(proof)] if proof.inputs else []
    parts += ["## Call", f"```text\ntheory.{law}{_signature(function)}\n```", _table(text)]
    parts += ["```pycon\n" + "\n".join(_examples(function)) + "\n```"]
    parts += _demonstration(law)
    if proof is not None:
        parts += ["## Derivation", proof.setting]
        for number, step in enumerate(proof.steps, start=1):
            parts.append(f"**{number}.** {step.text}")
            parts += [f"$${tex(equation)}$$" for equation in step.equations]
        parts.append(f"The same proof, live: `dl.derive({law!r})`.")
    parts += ["## References", "\n".join(f"- {_reference(paper)}" for paper in sources(law))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _legend(proof: Derivation) -> str:
    pairs = [f"${tex(symbol)}$ is `{name}`" for name, symbol in proof.inputs.items()]
    return "Here " + ", ".join(pairs) + "."


def _signature(function: Callable[..., Any]) -> str:
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
    return str(inspect.Signature(parameters))


def _table(text: docstring_parser.Docstring) -> str:
    rows = [(f"`{p.arg_name}`", p.description) for p in text.params]
    if text.returns is not None:
        rows.append(("*returns*", text.returns.description))
    rows += [(f"*raises* `{r.type_name}`", r.description) for r in text.raises]
    body = [f"| {name} | {_escape(' '.join((what or '').split()))} |" for name, what in rows]
    return "\n".join(["| argument | |", "|---|---|", *body])


def _examples(function: Callable[..., Any]) -> list[str]:
    lines = (inspect.getdoc(function) or "").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Example")), len(lines))
    return [f">>> from theory import {function.__name__}", *(line[4:] for line in lines[start + 1 :])]


def _demonstration(law: str) -> list[str]:
    if not (RESULTS / f"{law}.csv").exists():
        return []
    shown, row = read(law), read_errors().set_index("law").loc[law]
    verdict = "inside" if row["inside"] == "yes" else "**outside**"
    spread = f" (standard error {row['stderr']})" if row["stderr"] else ""
    what = row["quantity"] + (f", {row['series']}" if row["series"] else "")
    sentence = (
        f"Worst point: {what}, off by {row['worst']}{spread}, {verdict} the bar of {row['bar']}. "
        f"Median {row['median']}; seed {row['seed']}. Drawn by `python -m paper.laws {law}`."
    )
    parts = ["## Prediction against simulation", _escape(shown.setting), f"![{law}]({law}.svg)", _escape(sentence)]
    return [*parts, _escape(shown.note)] if shown.note else parts


def _reference(paper: Any) -> str:
    names = paper.authors.replace("{", "").replace("}", "").split(" and ")
    who = names[0].split(",")[0] + (" et al." if len(names) > 2 else "")
    who = " and ".join(name.split(",")[0] for name in names) if len(names) == 2 else who
    where = f"[arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.url
    return f"{who} ({paper.year}), *{paper.title}*" + (f", {where}" if where else "")


def _word(field: str) -> str:
    return rf"\mathrm{{{field}}}".replace("_", r"\_")


def _escape(text: str) -> str:
    """Plain sentences with formulas in them, safe in Markdown; what stands between backticks stays."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        for character in "*_|$":
            parts[i] = parts[i].replace(character, "\\" + character)
        parts[i] = parts[i].replace("<", "&lt;")
    return "`".join(parts)


def main() -> None:
    """Write the generated pages, and remove those of laws that are gone."""
    wanted = pages()
    folder = DOCS / "laws"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        if f"laws/{path.name}" not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (DOCS / name).write_text(text)


if __name__ == "__main__":
    main()
