import json
import re

import numpy as np
import pytest

from bridge.report_data import grid, pack, thinned, unpack
from bridge.report_whatif import FACTORS, changed, gradient_sizes, what_if
from tests.bridge.balanced import Balanced
from tests.bridge.browser import browser, watched
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine

HOSTILE = "h.1.</script><script>alert(1)</script>"
RECIPE = Recipe(
    AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05),
    Cosine(warmup=20, final=0.1),
    400,
    (Group("h.0.a", (32, 32), norm0=0.6), Group(HOSTILE, (16, 64), norm0=1.0, decayed=False)),
)
STEPS = np.arange(0, 400, 2)


@pytest.fixture
def report(write_run):
    pytest.importorskip("bokeh", reason="the report extra is not installed")
    from bridge.report_run import run_report

    prediction = predict(RECIPE)
    values = {q: v * np.array([1.02, 5.0]) for q, v in prediction.values(STEPS).items() if q != "rms"}
    return run_report(write_run(RECIPE, prediction, STEPS, values).path)


def test_curves_survive_packing_to_1e_4():
    rng = np.random.default_rng(0)
    values = np.exp(rng.uniform(np.log(1e-6), 0, (5, 40)))
    values[1, 3] = np.nan
    values[2] = np.nan
    values[3] -= 0.5  # not positive: coded as it is
    values[4] = 7.0
    found = unpack(pack(values))
    assert np.array_equal(np.isnan(found), np.isnan(values))
    # ln(1e6)/65534/2 = 1.05e-4 relative, where the logarithm is coded; half a code of a range of 1, where it is not
    assert np.nanmax(np.abs(found[[0, 1, 4]] / values[[0, 1, 4]] - 1)) < 1.1e-4
    assert np.abs(found[3] - values[3]).max() < 0.5 / 65_534 * 1.01


def test_thinned_curves_keep_ends_and_mean_squares(write_run):
    assert grid(10, 50).tolist() == list(range(10))
    positions = grid(5_000, 100)
    assert (positions[0], positions[-1]) == (0, 4_999)
    assert len(positions) <= 100
    scattered = np.stack([1 + np.arange(200) % 2, np.full(200, np.nan)], axis=1)  # 1, 2, 1, 2, and never measured
    steps, found = thinned(write_run(RECIPE, None, STEPS, {"angle": scattered}).pivot("angle"), 50)
    assert steps[-1] == STEPS[-1]
    counts = np.diff(np.searchsorted(STEPS, steps), prepend=-1)
    assert np.sum(counts * found[0] ** 2) / 200 == pytest.approx(2.5)  # nothing counted twice, nothing left out
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(("lr", "decay"), [(0.25, 4.0), (1.0, 1.0), (4.0, 0.5)])
def test_the_grid_is_what_predict_says(lr, decay):
    found = what_if(RECIPE)
    expected = predict(changed(RECIPE, lr, decay)).values(found.steps)
    for quantity, values in found.values.items():
        cell = values[FACTORS.index(lr), FACTORS.index(decay)]
        assert np.allclose(cell, expected[quantity].T, rtol=1e-12), quantity


def test_settings_that_no_optimizer_bears_are_left_out():
    recipe = Recipe(AdamW(lr=0.5, weight_decay=0.5), Constant(), 20, (Group("w", (8, 8), norm0=1.0),))
    angles = what_if(recipe).values["angle"]
    assert np.isnan(angles[FACTORS.index(4.0), FACTORS.index(1.0)]).all()  # 4 * 0.25 = 1 overshoots zero
    assert np.isfinite(angles[FACTORS.index(1.0), FACTORS.index(2.0)]).all()


def test_under_sgd_the_gradients_size_is_the_measured_one(write_run):
    recipe = Recipe(
        SGD(0.1, weight_decay=0.01), Constant(), 400, (Group("w", (8, 8), scale_invariant="tensor", norm0=1.0),)
    )
    norm = np.full((200, 1), 2.0)
    record = write_run(recipe, None, STEPS, {"norm": norm, "grad_norm": norm * 1.5})
    probe = gradient_sizes(record, recipe)
    assert probe == Probe(tensors={"w": TensorProbe(c2=36.0)})
    found = what_if(recipe, probe)
    expected = predict(changed(recipe, 2.0, 0.5), probe).values(found.steps)["norm"][:, 0]
    assert np.allclose(found.values["norm"][FACTORS.index(2.0), FACTORS.index(0.5), 0], expected)
    assert gradient_sizes(record, RECIPE) is None  # AdamW needs none


def test_it_is_well_formed_small_and_refers_to_nothing_outside(report):
    text = report.read_text()
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    parser = Balanced()
    parser.feed(body)
    assert parser.open == []
    assert "<script>alert(1)" not in text
    assert not re.search(r"<(script|img|iframe)[^>]*src=|@import|url\(http|<link[^>]*href=\"http", body)
    assert len(text) < 3e6


def test_it_says_what_happened_in_words_and_tables(report):
    body = re.sub(r"<script.*?</script>", "", report.read_text(), flags=re.DOTALL)
    for part in (
        "AdamW, learning rate 0.01, weight decay 0.05 (decoupled), Cosine schedule, 400 steps",
        "Norms relax within 1,000 steps",
        "Twice the weight decay",
        "written before step 0 and is unchanged",
        "norm: 1 of 2 tensors in band",
        "It is not decayed",
        "adamw_trajectory",
        "@",
    ):
        assert part in body, part
    assert body.index("400 steps") < body.index("<select")


def test_a_directory_that_cannot_be_reported_on(write_run, tmp_path):
    from bridge.report_run import run_report

    with pytest.raises(InputError, match="is not a run directory"):
        run_report(tmp_path / "nowhere")
    record = write_run(RECIPE, None, STEPS, {"angle": predict(RECIPE).values(STEPS)["angle"]})
    with pytest.raises(InputError, match="holds no norms"):
        run_report(record.path)
    (record.path / "recipe.json").unlink()
    with pytest.raises(InputError, match="holds no recipe"):
        run_report(record.path)


READ = """name => {
  const data = Bokeh.documents[0].get_model_by_name(name).data;
  return [Array.from(data.x), Array.from(data.y)];
}"""


@pytest.mark.slow
def test_in_a_browser_offline_by_keyboard(report):
    with browser() as chromium:
        context = chromium.new_context(offline=True, viewport={"width": 390, "height": 844})  # a phone's
        page = context.new_page()
        errors, asked = watched(page)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
        page.focus("#lr")
        page.keyboard.press("ArrowRight")  # x2
        page.focus("#decay")
        for _ in range(2):
            page.keyboard.press("ArrowLeft")  # x1/4
        assert page.inner_text("#lr-now").startswith("×2 = 0.02")
        expected = predict(changed(RECIPE, 2.0, 0.25))
        for quantity in ("norm", "angle", "effective_lr"):
            steps, shown = page.evaluate(READ, f"{quantity}:what-if")
            values = expected.values(steps)[quantity][:, 0]
            assert shown == pytest.approx(values.tolist(), rel=2e-4), quantity  # 16 bits of a logarithm
        said = re.search(r"norm: .*?what-if ([0-9.]+)", page.inner_text("#reading"))
        assert said is not None
        assert float(said[1]) == pytest.approx(expected.at(399).loc["h.0.a", "norm"], rel=1e-3)  # four digits are shown
        steps, shown = page.evaluate(READ, "norm:measured")
        assert shown[-1] == pytest.approx(1.02 * predict(RECIPE).at(398).loc["h.0.a", "norm"], rel=2e-3)
        page.focus("#next")
        page.keyboard.press("Enter")
        assert "alert(1)" in page.inner_text("#reading")
        page.focus("#zoom-in")
        page.keyboard.press("Enter")
        range_now = (
            "[Bokeh.documents[0].get_model_by_name('steps').start, Bokeh.documents[0].get_model_by_name('steps').end]"
        )
        start, end = page.evaluate(range_now)
        assert end - start == pytest.approx(399 / 2)
        page.focus("#reset")
        page.keyboard.press("Enter")
        assert page.evaluate(range_now) == [0, 399]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out on a phone
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        assert errors == []


def test_the_command_prints_where_it_wrote(report, capsys, tmp_path):
    from decaylab.cli import main

    out = tmp_path / "mine.html"
    with pytest.raises(SystemExit) as stop:
        main(["report", str(report.parent), "--out", str(out), "--json"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "bytes": out.stat().st_size}
