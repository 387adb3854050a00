"""Every law has a demonstration, the committed numbers are what the demonstrations give, and they can be drawn."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import theory
from paper import style
from paper.laws import figure, store
from paper.laws.__main__ import PAGES, main
from paper.laws.demonstration import Demonstration, pair
from paper.laws.draw import draw
from paper.laws.registry import DEMONSTRATIONS, WITHOUT
from theory.errors import InputError

FAST = (  # each takes under two seconds; together they drive torch's SGD, Adam, AdamW, bfloat16, a network, and scipy
    "arcsine",
    "adamw_exponential_lr",
    "bf16_scale_survival",
    "convert_decay",
    "ema_weights",
    "eos_period",
    "invariance_defect",
    "sgd_exponential_schedule",
    "time_to_eos",
    "timescale",
    "transfer",
)


def test_every_law_has_a_demonstration_or_a_reason():
    assert set(theory.__all__) <= set(DEMONSTRATIONS) | set(WITHOUT)
    assert not set(DEMONSTRATIONS) & set(WITHOUT)


def test_the_committed_tables_and_drawings_cover_every_demonstration():
    table = store.read_errors().set_index("law")
    assert list(table.index) == sorted(DEMONSTRATIONS)
    for name in DEMONSTRATIONS:
        ET.parse(PAGES / f"{name}.svg")


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_the_table_of_errors_follows_from_the_committed_points(name):
    row, shown = store.read_errors().set_index("law").loc[name], store.read(name)
    expected = store.summary(shown, float(row["seconds"]), int(row["seed"]))
    for column in ("worst", "median", "bar"):
        assert float(row[column]) == pytest.approx(float(expected[column]), rel=0.01)
    assert row["inside"] == expected["inside"]
    if row["inside"] == "no":  # what is missed is explained
        assert shown.note


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_the_committed_points_are_whole(name):
    shown = store.read(name)
    assert shown.law == name
    assert shown.setting.endswith(".")
    for series in shown.pairs:
        assert series.predicted.shape == series.measured.shape == shown.x.shape
        assert np.all(np.isfinite(series.predicted))
        assert np.all(np.isfinite(series.measured))
        assert series.bar > 0


@pytest.mark.parametrize("name", FAST)
def test_a_demonstration_run_again_gives_the_committed_numbers(name):
    committed, again = (
        store.read(name),
        DEMONSTRATIONS[name](int(store.read_errors().set_index("law").loc[name, "seed"])),
    )
    assert [(p.name, p.quantity, p.bar) for p in again.pairs] == [(p.name, p.quantity, p.bar) for p in committed.pairs]
    np.testing.assert_allclose(again.x, committed.x, rtol=1e-6)
    for new, old in zip(again.pairs, committed.pairs, strict=True):
        np.testing.assert_allclose(new.predicted, old.predicted, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(new.measured, old.measured, rtol=1e-6, atol=1e-9)


def example() -> Demonstration:
    x = np.array([1.0, 2.0, 4.0])
    pairs = (
        pair("a, b", "size", x, 1.01 * x, 0.01 * x, bar=0.02),
        pair("c", "size", x, x, bar=0.02),
        pair("a, b", "gap", 0 * x, 1e-3 * x, bar=3e-3, absolute=True),
    )
    return Demonstration("example", 'A "setting", with commas.', "x", x, pairs, log_x=True, note="Why.")


def test_errors_are_predicted_over_measured_and_the_worst_is_in_units_of_its_bar():
    shown = example()
    assert shown.pairs[0].error == pytest.approx([1 / 1.01 - 1] * 3)
    assert shown.pairs[2].error == pytest.approx([-1e-3, -2e-3, -4e-3])
    assert (shown.worst[0].quantity, shown.worst[1]) == ("gap", 2)
    assert not shown.inside
    assert store.summary(shown, 1.0, 0)["inside"] == "no"


def test_a_written_demonstration_is_read_back_and_draws_the_same(tmp_path):
    shown = example()
    store.write(shown, tmp_path)
    back = store.read("example", tmp_path)
    assert (back.law, back.setting, back.note, back.log_x, back.log_y) == (
        "example",
        shown.setting,
        "Why.",
        True,
        False,
    )
    for new, old in zip(back.pairs, shown.pairs, strict=True):
        assert (new.name, new.quantity, new.bar, new.absolute) == (old.name, old.quantity, old.bar, old.absolute)
        assert np.array_equal(new.measured, old.measured)
        assert (new.stderr is None) == (old.stderr is None)
    assert style.to_svg(draw(back)) == style.to_svg(draw(shown))


def test_drawing_has_the_law_over_the_measurement_and_errors_below():
    axes = {a.get_label(): a for a in draw(example()).axes}
    assert set(axes) == {"size", "error size", "gap", "error gap"}
    lines = [np.asarray(line.get_ydata()) for line in axes["size"].lines]
    assert any(np.array_equal(line, [1.0, 2.0, 4.0]) for line in lines)
    assert any(np.allclose(line, [1.01, 2.02, 4.04]) for line in lines)
    low, high = axes["error gap"].get_ylim()
    assert low < -0.4 < 0.3 < high  # per cent: the worst error and the bar are both in sight


def test_without_again_nothing_is_simulated(tmp_path):
    results, pages = tmp_path / "results", tmp_path / "pages"
    main(("transfer",), results=results, pages=pages)
    before = (results / "transfer.csv").read_bytes()
    changed = before.replace(b"after over before", b"afterwards")
    (results / "transfer.csv").write_bytes(changed)
    main(("transfer",), results=results, pages=pages)
    assert (results / "transfer.csv").read_bytes() == changed
    main(("transfer",), again=True, results=results, pages=pages)
    assert (results / "transfer.csv").read_bytes() == before
    assert (pages / "transfer.svg").read_text().startswith("<svg")
    with pytest.raises(InputError, match="among"):
        main(("no_law",), results=results, pages=pages)


def test_the_figure_of_all_equilibria_shows_every_law_and_its_bar():
    drawn = figure.draw([store.read(law) for law in figure.LAWS])
    axes = {a.get_label(): a for a in drawn.axes}
    assert {"norm", "angle (rad/step)", "error norm", "error angle (rad/step)"} == set(axes)
    shown = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert shown == {name.replace("\n", " ") for name in figure.LAWS.values()}
    # those of bfloat16 weights and of finite eps are no optimizer's
    equilibria = {name for name in DEMONSTRATIONS if name.endswith("_equilibrium") or name == "hyperball_angle"}
    assert equilibria - {"stochastic_rounding_equilibrium", "finite_eps_equilibrium"} <= set(figure.LAWS)
