"""What a figure of the paper consists of: its runs or its simulation, its drawing, its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from empirics.records import Record
from paper.figures.claims import Claim
from paper.figures.table import evaluations
from theory.errors import InputError, require

Scale = Literal["cpu", "gpu", "paper"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A figure: everything that `paper.figures.build` needs to make it, and nothing that depends on an outcome."""

    name: str
    """Its name, that of its module and its files."""
    statement: str
    """What the figure claims, in a sentence."""
    drawn: str
    """What is drawn, for the caption."""
    origin: Literal["original", "ours"]
    """Whether the claim is the original paper's (arXiv 2310.04415) or ours."""
    runs: Mapping[str, Callable[[], Sequence[TrainConfig]]] = field(default_factory=dict)
    """By scale: the runs. Empty for a figure that only simulates."""
    predicted: bool = False
    """Whether its runs need the prediction from before their first step."""
    simulation: Callable[[str], pd.DataFrame] | None = None
    """For a figure without runs: from the scale to its table."""
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By scale: what a simulation depends on (JSON values); a table made from others is out of date."""
    reduce: Callable[[Record], pd.DataFrame] = evaluations
    """From a finished run to its rows: columns step, quantity, value, and any more."""
    labels: Callable[[TrainConfig], Mapping[str, str | float]] = field(default=lambda config: {})
    """More columns that tell runs apart, besides dataset, train, lr, wd and seed."""
    draw: Callable[[pd.DataFrame], Figure]
    """From the table to the drawing."""
    claims: Callable[[pd.DataFrame], Sequence[Claim]]
    """From the table to the claims; bounds are constants of the module."""

    def configs(self, scale: str) -> tuple[TrainConfig, ...]:
        """The runs at a scale.

        Args:
            scale: cpu, gpu or paper.

        Returns:
            Their configurations, none for a simulation.

        Raises:
            InputError: If the figure is not made at that scale.
        """
        require(scale in ("cpu", "gpu", "paper"), "scale", scale, "one of cpu, gpu, paper")
        if scale not in self.scales:
            raise InputError(
                f"scale = {scale!r} is not allowed for figure {self.name}: it must be one of {', '.join(self.scales)}."
            )
        return tuple(self.runs[scale]()) if self.runs else ()

    @property
    def scales(self) -> tuple[str, ...]:
        """Scales at which the figure is made."""
        return tuple(self.runs or self.inputs)
