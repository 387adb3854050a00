"""Figures of the solvable settings: judged by predictions and simulations alone, drawn with few plain ticks."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from paper import style
from paper.figures import solvable
from paper.figures.setups import SEEDS


def table(*, law: float, bar: float, absolute: bool = False, x: tuple[float, ...] = (0.01, 0.02, 0.05)) -> pd.DataFrame:
    """A law that predicts `law` where 2 is simulated, two series."""
    rows = [
        ("a", seed, series, "norm", step, at, "lr", True, law, 2.0, bar, absolute)
        for seed in SEEDS
        for series in ("0: first", "1: second")
        for step, at in enumerate(x)
    ]
    first = ["law", "seed", "series", "quantity", "step", "x", "x_label", "log_x"]
    return pd.DataFrame(rows, columns=[*first, "predicted", "value", "bar", "absolute"])


@pytest.mark.parametrize(
    ("law", "bar", "absolute", "size"),
    [(2.1, 0.1, False, 0.5), (2.1, 0.1, True, 1.0), (1.5, 0.1, False, 2.5), (0.0, 0.1, False, 10.0)],
)
def test_the_error_is_counted_in_bars(law, bar, absolute, size):
    (claim,) = solvable.claims(table(law=law, bar=bar, absolute=absolute))
    assert claim.measured == pytest.approx(size)
    assert claim.passed == (claim.measured <= 1)
    assert claim.claim.startswith("a: ")
    assert claim.note == "worst: norm, first"
    (alone,) = solvable.claims(table(law=law, bar=bar, absolute=absolute).query("seed == 3"))
    assert not alone.passed


def test_every_law_gets_its_panel_and_every_series_its_name():
    with style.style():
        figure = solvable.draw(table(law=2.1, bar=0.1))
    assert figure.axes[0].get_title() == "a\nnorm"
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["first", "second"]
    with style.style():
        zero = solvable.draw(table(law=0.0, bar=0.1, absolute=True)).axes[0]
    assert zero.get_title().endswith("(law: 0)")
    assert zero.get_yscale() == "log"


@pytest.mark.parametrize(
    "x", [(0.005, 0.02, 0.2), np.geomspace(1e-3, 0.1, 9), np.geomspace(0.2, 3, 8), (4, 7, 12, 110)]
)
def test_ticks_are_few_plain_and_inside(x):
    axes = Figure().subplots()
    axes.plot(x, x)
    solvable.log_abscissa(axes, np.asarray(x))
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert 2 <= len(labels) <= solvable.MANY
    assert not any("e" in label for label in labels)
    assert min(x) * 0.95 < min(map(float, labels)) < max(map(float, labels)) < max(x) * 1.05
