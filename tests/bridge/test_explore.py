import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from bridge.explore import advice_table, answer, as_python, precision_table
from decaylab.commands.explore import SOURCES, build
from decaylab.commands.predict import MODELS
from tests.bridge.browser import browser, watched
from theory.optimizers import AdamW, Decay
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.recommend import advise
from theory.schedules import Cosine, Piecewise

ROOT = Path(__file__).parents[2]
SMALL = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.95), "steps": 300, "warmup": 10}
RECIPE = build(SMALL | {"model": "gpt2-124m", "schedule": "cosine", "final": 0.1})


def test_tensors_alike_are_predicted_once_and_as_predict_does():
    found = answer(RECIPE)
    assert sum(found.alike.values()) == len(RECIPE.groups)
    assert len(found.kinds) == len(found.alike) < 15
    name = found.kinds[2]
    curves = found.curves(name)
    whole = predict(RECIPE).at(299).loc[name]
    for quantity in ("norm", "angle", "effective_lr"):
        for end in ("", "_low", "_high"):
            assert curves.loc[299, quantity + end] == pytest.approx(whole[quantity + end], rel=1e-9)
    row = found.end().set_index("tensor").loc[name]
    assert row["norm"] == pytest.approx(whole["norm"])
    assert row["timescale (steps)"] == pytest.approx(1 / (2 * 1e-4))
    assert any("too small to matter" in sentence for sentence in found.sentences())


def test_precision_and_advice_are_theorys():
    assert precision_table(RECIPE, "float32", "nearest").empty
    table = precision_table(answer(RECIPE).recipe, "bfloat16", "nearest")
    assert {"decay rounds away", "steps stall"} <= set(table["what"])
    assert advice_table(RECIPE, 512).empty
    rules = advice_table(RECIPE, 512, steps=4.0)
    have = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 512, "steps": 300}
    assert rules["weight_decay"].tolist() == [a.weight_decay for a in advise(have, {"steps": 1_200})]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(
            AdamW(lr=1e-3, decay=Decay.SCHEDULED),
            Cosine(warmup=3),
            100,
            (Group("w", (3,), decayed=False),),
            weight_decay_schedule=Piecewise(knots=((0, 0.5), (10, 1.0))),
            betas_schedule=((0, (0.9, 0.99)), (5, (0.8, 0.9))),
        ),
        *(build(SMALL | {"optimizer": name, "schedule": "wsd"}) for name in ("adam", "lion")),
        *(
            build({"optimizer": name, "momentum": 0.5, "steps": 10})
            for name in ("sgd", "signum", "normalized", "muon", "hyperball")
        ),
    ],
    ids=lambda recipe: type(recipe.optimizer).__name__,
)
def test_the_exported_python_makes_the_recipe(recipe):
    space = {}
    exec(compile(as_python(recipe), "export", "exec"), space)
    assert space["recipe"] == recipe


@pytest.mark.parametrize("name", ["explore", "extras", "report_data", "report_run"])
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(f"bridge.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)


def test_every_architecture_has_a_source():
    import decaylab as dl

    for model in MODELS:
        assert eval(SOURCES[model], {"dl": dl}) == build({"model": model}).groups


@pytest.fixture
def explorer():
    pytest.importorskip("panel", reason="the explore extra is not installed")
    code = "from decaylab.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "explore", "--port", "0", "--no-show", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = ""
        while not lines.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            lines += line
        yield process, json.loads(lines)["address"]
    finally:
        process.kill()
        process.communicate()


def upgrade(address: str, origin: str) -> int:
    """Status of a WebSocket handshake from a page of `origin`."""
    import http.client

    host = address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    key |= {"Sec-WebSocket-Protocol": "bokeh, none", "Upgrade": "websocket", "Connection": "Upgrade", "Origin": origin}
    connection.request("GET", "/ws", headers=key)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
def test_it_answers_on_loopback_refuses_other_origins_and_stops_with_ctrl_c(explorer):
    process, address = explorer
    assert address.startswith("http://127.0.0.1:")
    assert upgrade(address, "http://evil.example") == 403
    assert upgrade(address, address.rstrip("/")) != 403
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_the_app_in_a_browser(explorer, tmp_path):
    _, address = explorer
    assert urllib.request.urlopen(address, timeout=120).status == 200
    with browser() as chromium:
        page = chromium.new_page()
        errors, asked = watched(page)
        page.goto(address)
        page.wait_for_selector("#speed", timeout=120_000)
        page.wait_for_function("Bokeh.documents[0].get_model_by_name('norm').data.x.length > 10")
        read = "Array.from(Bokeh.documents[0].get_model_by_name('norm').data.y)"
        before = page.evaluate(read)
        box = page.get_by_label("Steps", exact=True)
        box.fill("2000")
        box.press("Enter")
        last = "Bokeh.documents[0].get_model_by_name('norm').data.x"
        page.wait_for_function(f"{last}[{last}.length - 1] === 1999", timeout=60_000)
        now = page.evaluate(read)
        with page.expect_download() as wait:
            page.get_by_text("Recipe as JSON").click()
        recipe = Recipe.from_json(Path(wait.value.path()).read_text())
        assert recipe.steps == 2_000
        name = answer(recipe).kinds[0]
        assert now == pytest.approx(answer(recipe).curves(name)["norm"].tolist(), rel=1e-12)
        assert not np.allclose(before[-1], now[-1])
        with page.expect_download() as wait:
            page.get_by_text("Recipe as Python").click()
        space = {}
        exec(compile(Path(wait.value.path()).read_text(), "export", "exec"), space)
        assert space["recipe"] == recipe
        assert [
            url for url in asked if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
        ] == []
        assert errors == []
