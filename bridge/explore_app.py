"""The explorer as a local app: widgets on the left, the real theory's answers on the right."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import pandas as pd

from bridge.explore import SHOWN, Answer, advice_table, answer, as_python, precision_table
from bridge.extras import extra
from bridge.report_charts import LABELS
from theory.errors import InputError
from theory.recipe import Recipe

Build = Callable[[Mapping[str, Any]], Recipe]
RATES = [float(f"{m}e{e}") for e in range(-6, 1) for m in (1, 1.5, 2, 3, 4, 6, 8)]
"""Stops of the sliders for learning rate and weight decay."""
OPTIMIZERS = ("adamw", "adam", "sgd", "lion", "signum", "normalized", "muon", "hyperball")
SCHEDULES = ("constant", "linear", "cosine", "invsqrt", "wsd")
TWO_BETAS = ("adamw", "adam", "lion")


class Explorer:
    """One session's page.

    Args:
        build: From the fields that the widgets set to a recipe.
        models: Architectures to choose from.
        sources: Python source of each architecture's groups, for the export.
        start: Fields that differ from the defaults at first.
    """

    def __init__(
        self, build: Build, models: tuple[str, ...], sources: Mapping[str, str], start: Mapping[str, Any] | None = None
    ) -> None:
        pn, models_of, plotting = (extra(name, "explore") for name in ("panel", "bokeh.models", "bokeh.plotting"))
        self.build, self.sources = build, sources
        w = pn.widgets
        first = {"optimizer": "adamw", "lr": 6e-4, "weight_decay": 0.1, "steps": 10_000, "warmup": 500} | dict(
            start or {}
        )
        self.fields: dict[str, Any] = {
            "model": w.Select(name="Architecture", options=list(models), value=models[0]),
            "optimizer": w.Select(name="Optimizer", options=list(OPTIMIZERS), value=first["optimizer"]),
            "lr": _slider(w, "Learning rate", RATES, first["lr"]),
            "weight_decay": _slider(w, "Weight decay", [0.0, *RATES], first["weight_decay"]),
            "beta1": w.FloatInput(name="beta1", value=0.9, start=0, end=0.9999, step=0.01),
            "beta2": w.FloatInput(name="beta2", value=0.95, start=0, end=0.999999, step=0.01),
            "momentum": w.FloatInput(name="Momentum", value=0.9, start=0, end=0.9999, step=0.01),
            "schedule": w.Select(name="Schedule", options=list(SCHEDULES), value="cosine"),
            "steps": w.IntInput(name="Steps", value=first["steps"], start=1, step=1_000),
            "warmup": w.IntInput(name="Warm-up steps", value=first["warmup"], start=0, step=100),
            "final": w.FloatInput(name="Final rate / peak", value=0.1, start=0, end=1, step=0.05),
        }
        self.other: dict[str, Any] = {
            "weight_dtype": w.Select(name="Weights stored in", options=["float32", "bfloat16", "float16"]),
            "rounding": w.Select(name="Rounding", options=["nearest", "fused", "stochastic"]),
            "batch_size": w.FloatInput(name="Batch size", value=512, start=1, step=64),
            "batch": w.FloatInput(name="... times, wanted", value=1, start=0.01, step=1),
            "length": w.FloatInput(name="Steps times, wanted", value=4, start=0.01, step=1),
        }
        self.tensor = w.Select(name="Tensor", options=[], sizing_mode="stretch_width", max_width=420)
        self.message, self.facts, self.speed = pn.pane.HTML(""), pn.pane.HTML(""), pn.pane.HTML("", name="speed")
        self.ends, self.precision, self.advice = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(3))
        self.figures, self.data = {}, {}
        for quantity in SHOWN:
            source = models_of.ColumnDataSource({key: [] for key in ("x", "y", "low", "high")}, name=quantity)
            kind = "linear" if quantity == "norm" else "log"
            tools = "xbox_zoom,xpan,save,reset"
            figure = plotting.figure(height=230, sizing_mode="stretch_width", y_axis_type=kind, tools=tools)
            figure.varea("x", "low", "high", source=source, alpha=0.2)
            figure.line("x", "y", source=source, line_width=2)
            figure.yaxis.axis_label, figure.xaxis.axis_label = LABELS[quantity], "step"
            figure.toolbar.logo = None
            self.figures[quantity], self.data[quantity] = figure, source
        self.exports = (
            w.FileDownload(callback=self.json, filename="recipe.json", label="Recipe as JSON", button_type="primary"),
            w.FileDownload(callback=self.python, filename="recipe.py", label="Recipe as Python", button_type="primary"),
        )
        self.recipe: Recipe | None = None
        self.answer: Answer | None = None
        self.shown: Answer | None = None
        for widget in self.fields.values():
            widget.param.watch(self.refresh, "value")
        self.tensor.param.watch(self.draw, "value")
        for widget in self.other.values():
            widget.param.watch(self.details, "value")
        self.refresh()

    def page(self) -> Any:
        """The layout."""
        pn = extra("panel", "explore")
        left = pn.Column("## decaylab explore", *self.fields.values(), *self.exports, width=330)
        right = pn.Column(
            self.message,
            self.facts,
            self.tensor,
            *(pn.pane.Bokeh(self.figures[quantity], sizing_mode="stretch_width") for quantity in SHOWN),
            self.speed,
            "### At the end of the run",
            self.ends,
            "### Precision",
            pn.FlexBox(self.other["weight_dtype"], self.other["rounding"]),
            self.precision,
            "### What to set for another batch or length",
            pn.FlexBox(self.other["batch_size"], self.other["batch"], self.other["length"]),
            self.advice,
            styles={"flex": "1 1 20rem", "min-width": "0"},  # beside the widgets, or below them on a phone
        )
        return pn.FlexBox(left, right, flex_wrap="wrap", sizing_mode="stretch_width")

    def refresh(self, *_: Any) -> None:
        """Predict again; an impossible setting says so and leaves the last curves."""
        optimizer = self.fields["optimizer"].value
        self.fields["beta1"].visible = self.fields["beta2"].visible = optimizer in TWO_BETAS
        self.fields["momentum"].visible = optimizer not in TWO_BETAS
        self.fields["weight_decay"].visible = optimizer != "hyperball"
        began = time.perf_counter()
        try:
            recipe = self.build(self.values())
            found = answer(recipe)
        except InputError as error:
            self.message.object = f'<p role="alert" style="color:#a33b00"><b>{escape(str(error))}</b></p>'
            return
        self.recipe, self.answer, self.message.object = recipe, found, ""
        options = {f"{name} ({found.alike[name]} alike)": name for name in found.kinds}
        if self.tensor.options == options:
            self.draw()
        elif self.tensor.value in found.kinds:
            self.tensor.options = options
            self.draw()
        else:
            self.tensor.param.update(options=options, value=found.kinds[0])  # which draws
        self.speed.object = f'<p id="speed">Predicted again in {1e3 * (time.perf_counter() - began):.0f} ms.</p>'
        self.details()

    def values(self) -> dict[str, Any]:
        """What the widgets say, as fields of a recipe."""
        values = {name: widget.value for name, widget in self.fields.items()}
        betas = values.pop("beta1"), values.pop("beta2")
        momentum = values.pop("momentum")
        two = values["optimizer"] in TWO_BETAS
        return values | ({"betas": betas} if two else {"momentum": momentum})

    def draw(self, *_: Any) -> None:
        """Show the picked tensor."""
        if self.answer is None or self.tensor.value not in self.answer.kinds:
            return
        curves = self.answer.curves(self.tensor.value)
        for quantity, source in self.data.items():
            columns = {"y": quantity, "low": f"{quantity}_low", "high": f"{quantity}_high"}
            source.data = {"x": curves.index.to_numpy()} | {
                key: curves[name].to_numpy() for key, name in columns.items()
            }

    def details(self, *_: Any) -> None:
        """All tensors, precision and advice take longer than the picked curve: after it, where a page is open."""
        pn = extra("panel", "explore")
        document = pn.state.curdoc
        if document is not None and document.session_context is not None:
            document.add_next_tick_callback(self._details)
        else:
            self._details()

    def _details(self) -> None:
        if self.recipe is None or self.answer is None:
            return
        other = {name: widget.value for name, widget in self.other.items()}
        if self.shown is not self.answer:
            texts = self.answer.sentences()
            self.facts.object = "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"
            self.ends.object, self.shown = _table(self.answer.end()), self.answer
        try:
            table = precision_table(self.answer.recipe, other["weight_dtype"], other["rounding"])
            self.precision.object = _table(table) if len(table) else "<p>Nothing is lost to rounding.</p>"
            advice = advice_table(self.recipe, other["batch_size"], batch=other["batch"], steps=other["length"])
            nothing = "<p>Nothing changes, or nothing is decayed.</p>"
            self.advice.object = _table(advice) if len(advice) else nothing
        except InputError as error:
            self.advice.object = f"<p>{escape(str(error))}</p>"

    def json(self) -> io.StringIO:
        """The recipe as JSON."""
        return io.StringIO("" if self.recipe is None else self.recipe.to_json(indent=1))

    def python(self) -> io.StringIO:
        """The recipe as Python."""
        source = self.sources.get(self.fields["model"].value)
        return io.StringIO("" if self.recipe is None else as_python(self.recipe, source))


def server(explorer: Callable[[], Any], port: int) -> Any:
    """A server on the loopback interface that takes connections from its own page only.

    Args:
        explorer: Makes the page of a session.
        port: Port; 0 for any free one.

    Returns:
        A Bokeh server that listens and is not yet started.

    Raises:
        InputError: If Panel is not installed.
        OSError: If the port is taken.
    """
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    origins = [f"{host}:{port}" for host in ("127.0.0.1", "localhost")]
    return extra("panel.io.server", "explore").get_server(
        {"/": explorer},
        port=port,
        address="127.0.0.1",
        websocket_origin=origins,
        start=False,
        show=False,
        title="decaylab explore",
    )


def _slider(widgets: Any, name: str, stops: list[float], value: float) -> Any:
    options = sorted({*stops, value})
    return widgets.DiscreteSlider(name=name, options=options, value=value, formatter="%.3g")


def _table(frame: pd.DataFrame) -> str:
    return f'<div style="overflow-x:auto">{frame.to_html(index=False, float_format="{:.4g}".format, border=0)}</div>'
