"""The report's charts: empty figures of Bokeh, which run.js fills with the tensor that is picked."""

from __future__ import annotations

import json
from typing import Any

from bridge.extras import extra

LABELS = {
    "norm": "norm ‖w‖",
    "angle": "rotation, rad/step",
    "effective_lr": "effective learning rate",
}
"""Quantities that are drawn, and what their axes say."""
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#56b4e9"  # Okabe and Ito's, told apart by the colour-blind


def library() -> str:
    """JavaScript of the charting library, from the installed package.

    Returns:
        The source.

    Raises:
        InputError: If Bokeh is not installed.
    """
    return "\n".join(
        extra("bokeh.resources", "report").Resources(mode="inline", components=["bokeh"], minified=True).js_raw[:1]
    )


def charts(steps: int) -> dict[str, Any]:
    """Figures below one another, with one step axis.

    Args:
        steps: Length of the run.

    Returns:
        What `Bokeh.embed.embed_item` takes. Sources are named <quantity>:measured, :predicted and :what-if, the step
        axis "steps".

    Raises:
        InputError: If Bokeh is not installed.
    """
    models, plotting, layouts = (
        extra("bokeh.models", "report"),
        extra("bokeh.plotting", "report"),
        extra("bokeh.layouts", "report"),
    )
    shared = models.Range1d(0, max(steps - 1, 1), bounds=(0, max(steps - 1, 1)), name="steps")
    figures = []
    for quantity, label in LABELS.items():
        figure = plotting.figure(
            name=quantity,
            height=260,
            sizing_mode="stretch_width",
            x_range=shared,
            y_axis_type="linear" if quantity == "norm" else "log",
            tools="xbox_zoom,xpan,xwheel_zoom,save,reset",
            active_drag=None,  # on a phone a drag scrolls the page until a tool is chosen
            active_scroll=None,
            output_backend="canvas",
        )
        figure.window_axis = "x"
        figure.toolbar.logo = None
        figure.yaxis.axis_label, figure.xaxis.axis_label = label, "step"
        figure.xaxis.formatter = models.NumeralTickFormatter(format="0,0")
        sources = {
            kind: models.ColumnDataSource({key: [] for key in keys}, name=f"{quantity}:{kind}")
            for kind, keys in {
                "predicted": ("x", "y", "low", "high"),
                "measured": ("x", "y"),
                "what-if": ("x", "y"),
            }.items()
        }
        figure.varea("x", "low", "high", source=sources["predicted"], color=GREY, alpha=0.2, legend_label="band")
        lines = {"predicted": (BLUE, "solid", 2), "measured": ("black", "solid", 1.5), "what-if": (ORANGE, "dashed", 2)}
        drawn = [
            figure.line("x", "y", source=sources[kind], color=c, line_dash=d, line_width=w, legend_label=kind)
            for kind, (c, d, w) in lines.items()
        ]
        tips = [("step", "@x{0,0}"), (label, "@y{0.0000e+0}")]
        figure.add_tools(models.HoverTool(renderers=drawn, tooltips=tips, mode="mouse"))
        figure.legend.orientation, figure.legend.click_policy = "horizontal", "hide"
        figure.legend.location, figure.legend.label_text_font_size, figure.legend.padding = "top_right", "9pt", 2
        figure.legend.background_fill_alpha = 0.7
        figures.append(figure)
    return extra("bokeh.embed", "report").json_item(layouts.column(figures, sizing_mode="stretch_width"), "charts")


def as_json(value: Any) -> str:
    """JSON that may stand inside a script element.

    Args:
        value: Dictionaries, lists, numbers, strings.

    Returns:
        The text.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
