"""The examples of the bridge's modules run and print what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "bridge.describe",
    "bridge.law_of",
    "bridge.reference",
    "bridge.sinks",
    "bridge.watch",
    "bridge.watch_forecast",
    "bridge.watch_rates",
    "bridge.watch_recipe",
    "bridge.watch_schedule",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0
