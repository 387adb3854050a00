"""Every demonstration by the name of its law."""

from __future__ import annotations

from collections.abc import Callable

from paper.laws import (
    adaptive,
    conventions,
    departures,
    equilibrium,
    equivalence,
    invariance,
    onepass,
    overtraining,
    precision,
    signs,
    timescale,
    trajectory,
)
from paper.laws.demonstration import Demonstration

_GROUPS = (
    adaptive,
    conventions,
    departures,
    equilibrium,
    equivalence,
    invariance,
    onepass,
    overtraining,
    precision,
    signs,
    timescale,
    trajectory,
)
DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = dict(
    sorted((name, show) for group in _GROUPS for name, show in group.DEMONSTRATIONS.items())
)
"""Law name -> function of a seed."""

WITHOUT: dict[str, str] = {
    "convert": "applies convert_decay, demonstrated here, to every step of a recipe",
    "predict": "puts the trajectories together for whole recipes; `decaylab validate` holds it against real runs",
    "equivalent_schedule": "chooses among the twins demonstrated here (sgd_, adamw_ and lion_exponential_...)",
}
"""Names in `theory.__all__` that are no law of their own, and why they have no demonstration."""
