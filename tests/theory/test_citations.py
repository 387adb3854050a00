"""Every law names its sources, every source is in the bibliography, and a prediction cites what it used."""

import re

import pytest

import decaylab as dl
import theory
from theory.bibliography import DECAYLAB, PAPERS
from theory.citations import citations, sources
from theory.errors import InputError

LAWS = sorted(set(theory.__all__))


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_a_source(law):
    assert sources(law)


def test_the_bibliography_is_what_the_laws_cite():
    """The original study and the papers behind advice are the only ones that no law's docstring names."""
    cited = {paper for law in LAWS for paper in sources(law)}
    spare = {number for number, paper in PAPERS.items() if paper not in cited}
    assert spare <= {"2310.04415", "2505.13738", "2510.15262", "2510.19093"}
    keys = [paper.key for paper in [*PAPERS.values(), DECAYLAB]]
    assert len(set(keys)) == len(keys)


def test_entries_are_bibtex():
    for paper in [*PAPERS.values(), DECAYLAB]:
        text = paper.bibtex()
        assert text.count("{") == text.count("}")
        assert re.match(r"@misc\{[a-z0-9]+,\n(  \w+ = \{.*\},\n)+\}$", text)


def test_a_prediction_cites_its_laws_and_no_others():
    sgd = dl.predict(dl.Recipe(dl.SGD(0.1, weight_decay=1e-3), steps=10, groups=(dl.Group("w", (4, 4)),)))
    text = citations(sgd)
    assert set(re.findall(r"^% (\w+):", text, re.M)) == set(sgd.laws)
    assert "Rotational Equilibrium" in text
    assert "Symbolic Discovery" not in text
    lion = dl.predict(dl.Recipe(dl.Lion(0.1, weight_decay=1e-3), steps=10, groups=(dl.Group("w", (4, 4), norm0=1.0),)))
    assert "Symbolic Discovery" in dl.citations(lion)
    assert len(re.findall("@misc", text)) == len(set(re.findall("@misc.*", text)))


def test_an_unknown_law():
    with pytest.raises(InputError, match="'newton' is not allowed: it must be the name of a law"):
        citations("newton")
