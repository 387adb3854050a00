"""Every example in theory's docstrings runs and prints what it says; every public function has a docstring."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import theory

MODULES = ["theory", *(module.name for module in pkgutil.walk_packages(theory.__path__, "theory."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(examples) > 30


@pytest.mark.parametrize("name", sorted(set(theory.__all__)))
def test_public_laws_explain_themselves(name):
    law = getattr(theory, name)
    if callable(law):
        text = inspect.getdoc(law) or ""
        for part in ("Args:", "Returns:", ">>> "):
            assert part in text, part
