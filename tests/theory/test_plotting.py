import builtins

import numpy as np
import pytest
from matplotlib.figure import Figure

from theory import predict, shapes
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.plotting import representative_groups
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine


@pytest.fixture(scope="module")
def prediction():
    return predict(Recipe(AdamW(6e-4, (0.9, 0.95), weight_decay=0.1), Cosine(20), 500, shapes.gpt2("124m")))


def test_draws_what_was_predicted(prediction):
    figure = prediction.plot(["transformer.wte.weight", "transformer.ln_f.weight"])
    assert isinstance(figure, Figure)
    rms, angle, rate = figure.axes
    assert len(rms.lines) == len(angle.lines) == 2
    steps = prediction.default_steps()
    values = prediction.values(steps)["rms"][:, 0]
    assert np.array_equal(rms.lines[0].get_xdata(), steps)
    assert np.array_equal(rms.lines[0].get_ydata(), values)
    assert np.array_equal(rate.lines[0].get_ydata(), prediction.recipe.lr(steps))
    assert [axis.get_xlabel() for axis in figure.axes] == ["step"] * 3
    assert len(rms.collections) == 2  # the bands


def test_chooses_matrices_that_differ(prediction):
    chosen = representative_groups(prediction)
    assert 1 < len(chosen) <= 6
    assert all(len(group.shape) >= 2 for group in prediction.recipe.groups if group.name in chosen)
    assert len(prediction.plot().axes[0].lines) == len(chosen)


def test_draws_even_if_nothing_is_known():
    recipe = Recipe(SGD(0.1), Constant(), 5, (Group("w", (3,)),))
    assert len(predict(recipe).plot().axes) == 3


def test_unknown_group(prediction):
    with pytest.raises(InputError, match="groups = 'wte'"):
        prediction.plot(["wte"])


def test_without_matplotlib_it_says_what_to_install(prediction, monkeypatch):
    original = builtins.__import__

    def no_matplotlib(name, *args, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(InputError, match="'plot' extra"):
        prediction.plot()
