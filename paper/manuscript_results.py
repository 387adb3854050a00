"""What the paper knows: the checks of every figure at every scale, by the section where the figure belongs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper.figures import NAMES
from paper.laws.store import RESULTS as LAWS
from theory.errors import InputError

PAPER = Path(__file__).parent
RESULTS = LAWS.parent
"""Committed results: one folder a scale, and the laws."""
BENCHMARKS = PAPER.parent / "benchmarks" / "results"
"""Committed measurements."""
DEBIAN = ("latexmk", "texlive-latex-base", "texlive-latex-extra", "lmodern")
"""Packages that compile the paper."""
SCALES = ("cpu", "gpu", "paper")
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "theory": ("laws", "schedules", "twin", "end_of_run"),
    "overtraining": (
        "overtraining_curves",
        "overtraining_heatmap",
        "noise_driven_process",
        "jacobian_at_equal_loss",
        "sphere",
        "data_regimes",
        "vgg_curves",
        "label_noise",
        "sphere_eos",
    ),
    "onepass": ("lm_decay_curves", "lm_constant_lr", "lm_effective_lr", "lm_l2_and_coverage", "least_squares"),
    "precision": ("lm_low_precision", "precision_knob", "rounding"),
    "predictions": ("rotation", "one_run_predicts_the_sweep"),
    "advice": ("transfer",),
}
"""Figures by section, in the paper's order: those that exist and those that are planned."""


@dataclass(frozen=True)
class Result:
    """A figure at a scale, as its checks.json has it."""

    name: str
    """Of the figure."""
    scale: str
    """cpu, gpu or paper."""
    entry: Mapping[str, Any]
    """Its entry in checks.json."""

    @property
    def key(self) -> str:
        """Scale and name: what labels and claim ids begin with."""
        return f"{self.scale}/{self.name}"

    @property
    def checks(self) -> Sequence[Mapping[str, Any]]:
        """Its checks."""
        return self.entry["checks"]

    def of(self, verdict: str) -> list[str]:
        """Ids of its claims with a verdict.

        Args:
            verdict: pass, fail or undecided.

        Returns:
            Their ids, such as cpu/end_of_run.1.
        """
        return [f"{self.key}.{i}" for i, check in enumerate(self.checks, start=1) if check["verdict"] == verdict]

    @property
    def state(self) -> str:
        """One of pass, fail, undecided and incomplete; only the first makes its statement a claim."""
        if self.entry["missing"] or not self.checks:
            return "incomplete"
        return "fail" if self.of("fail") else "undecided" if self.of("undecided") else "pass"

    @property
    def drawn(self) -> str:
        """What is drawn: the part of the stored caption between the statement and the first number."""
        text = str(self.entry["caption"]).removeprefix(self.entry["statement"]).strip()
        ends = [text.find(f"{check['claim']}: ") for check in self.checks]
        ends = [end for end in [*ends, text.find(f"Scale {self.scale}.")] if end >= 0]
        return text[: min(ends)].strip() if ends else ""


def collect(results: Path = RESULTS) -> list[Result]:
    """Every figure that has been made, in the paper's order.

    Args:
        results: Folder of results.

    Returns:
        Figures of all scales; those that no section names come last.

    Raises:
        InputError: If a checks.json cannot be read.
    """
    order = [name for names in SECTIONS.values() for name in names]
    found = []
    for scale in SCALES:
        path = results / scale / "checks.json"
        if path.exists():
            try:
                entries = json.loads(path.read_text())["figures"]
            except (ValueError, KeyError) as error:
                raise InputError(f"{path} is not a file of checks ({type(error).__name__}).") from None
            found += [Result(name, scale, entry) for name, entry in sorted(entries.items())]
    rank = {name: place for place, name in enumerate(order)}
    return sorted(found, key=lambda result: (rank.get(result.name, len(order)), result.name))


def sections(found: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """Figures by section.

    Args:
        found: From `collect`.

    Returns:
        `SECTIONS`, and under "more" the figures that exist but that it does not name.
    """
    named = {name for names in SECTIONS.values() for name in names}
    more = dict.fromkeys(name for name in (*NAMES, *(result.name for result in found)) if name not in named)
    return {**SECTIONS, "more": tuple(more)}


def benchmark(name: str, folder: Path = BENCHMARKS) -> Mapping[str, Any]:
    """A committed measurement.

    Args:
        name: Of its file, without the extension.
        folder: Where they are.

    Returns:
        Its part "results".

    Raises:
        InputError: If it is not there.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise InputError(f"{path} is missing: the paper is built in a checkout that has its committed measurements.")
    return json.loads(path.read_text())["results"]
