"""BibTeX for exactly the laws that were used: their docstrings name their sources, and nothing else does."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from theory.bibliography import DECAYLAB, PAPERS, Paper
from theory.errors import require
from theory.prediction import Prediction

_ARXIV = re.compile(r"\b(\d{4}\.\d{4,5})\b")


def sources(law: str) -> tuple[Paper, ...]:
    """The papers that a law rests on, and decaylab itself where the law, or its exact form, was derived here.

    Args:
        law: Name of a law of `theory`.

    Returns:
        Papers in the order in which the law's docstring names them, decaylab last.

    Raises:
        InputError: If there is no such law.

    Example:
        >>> [paper.key for paper in sources("sgd_exponential_lr")]
        ['li2019exponential', 'decaylabauthors2026decaylab']
    """
    import theory

    require(law in theory.__all__, "law", law, "the name of a law, one of theory.__all__")
    text = inspect.getdoc(getattr(theory, law)) or ""
    found = [PAPERS[number] for number in _ARXIV.findall(text)]
    if "Jordan et al." in text:
        found.append(PAPERS["muon"])
    if not found or re.search(r"[Dd]erived (here|from)|by Yule-Walker", text):
        found.append(DECAYLAB)
    return tuple(dict.fromkeys(found))


def citations(used: Prediction | Sequence[str] | str) -> str:
    """BibTeX of the papers behind a prediction, or behind named laws.

    Args:
        used: A prediction, the name of a law, or names of laws.

    Returns:
        BibTeX source: a comment for each law with the keys it needs, then every entry once.

    Raises:
        InputError: If a law is unknown.

    Example:
        >>> print(citations("sgd_equilibrium").splitlines()[0])
        % sgd_equilibrium: kosson2023rotational, wan2020spherical, decaylabauthors2026decaylab
    """
    laws = used.laws if isinstance(used, Prediction) else (used,) if isinstance(used, str) else tuple(used)
    by_law = {law: sources(law) for law in laws}
    comments = [f"% {law}: {', '.join(paper.key for paper in papers)}" for law, papers in by_law.items()]
    entries = dict.fromkeys(paper for papers in by_law.values() for paper in papers)
    return "\n".join([*comments, "", *(paper.bibtex() for paper in entries)]) + "\n"
