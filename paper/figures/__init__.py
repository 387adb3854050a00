"""The figures, drawn from results; those of the paper by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from theory.errors import require

if TYPE_CHECKING:
    from paper.figures.spec import Spec

SOLVABLE = ("laws", "schedules", "twin", "rounding", "least_squares", "label_noise", "sphere_eos")
"""Figures of `paper.figures.solvable`."""
NAMES = (
    "overtraining_curves",
    "overtraining_heatmap",
    "noise_driven_process",
    "jacobian_at_equal_loss",
    "sphere",
    "vgg_curves",
    "data_regimes",
    "lm_decay_curves",
    "lm_constant_lr",
    "lm_effective_lr",
    "lm_low_precision",
    "precision_knob",
    "lm_l2_and_coverage",
    "rotation",
    "one_run_predicts_the_sweep",
    "transfer",
    "end_of_run",
    *SOLVABLE,
)
"""Figures of the paper, in its order; each is a module with a `SPEC` but for the solvable ones."""


def load(name: str) -> Spec:
    """Look a figure up.

    Args:
        name: One of `NAMES`.

    Returns:
        The figure.

    Raises:
        InputError: If there is none of that name.

    Example:
        >>> load("overtraining_heatmap").origin
        'original'
    """
    require(name in NAMES, "figure", name, f"one of {', '.join(NAMES)}")
    if name in SOLVABLE:
        return import_module("paper.figures.solvable").spec(name)
    return import_module(f"paper.figures.{name}").SPEC
