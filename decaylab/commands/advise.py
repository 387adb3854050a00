"""decaylab advise: what to set for another batch, length or width, and what your own runs say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError
from theory.recommend import advise


@dataclass(frozen=True)
class Have:
    """The tuned setting; or, without one, the size of the model and of the data."""

    lr: float | None = None
    """Learning rate."""
    weight_decay: float | None = None
    """Decoupled weight decay."""
    batch_size: float | None = None
    """Examples a step; tokens a step where nothing is tuned yet."""
    steps: float | None = None
    """Length of the run."""
    width: float | None = None
    """Width of the model."""
    dataset_size: float | None = None
    """Examples in the data set."""
    parameters: float | None = None
    """Parameters of the model (where nothing is tuned yet)."""
    tokens: float | None = None
    """Tokens to be trained on (where nothing is tuned yet)."""


@dataclass(frozen=True)
class Want:
    """What changes."""

    lr: float | None = None
    """Another learning rate."""
    batch_size: float | None = None
    """Another batch size."""
    steps: float | None = None
    """Another length."""
    width: float | None = None
    """Another width."""
    dataset_size: float | None = None
    """Another data set size."""
    tokens_per_parameter_ratio: float | None = None
    """Tokens per parameter, wanted over present, where the width changes."""
    lr_rule: str | None = None
    """How the learning rate follows the batch: sqrt, linear or fixed."""


@dataclass(frozen=True)
class Advise:
    """Say what to set and why: every rule that applies, side by side, with its source and its limits."""

    have: Have = Have()
    """What is tuned."""
    want: Want = Want()
    """What changes."""
    runs: Path | None = None
    """Folder of run directories (or one of them): what they say about their own weight decay."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Ask the rules and read the runs.

        Returns:
            Exit code 0.

        Raises:
            InputError: If there is nothing to ask, or an input is missing or out of range.
        """
        have, want = _given(self.have), _given(self.want)
        if not have and self.runs is None:
            raise InputError(
                "Nothing to advise on: give the tuned setting (--have.lr --have.weight-decay --have.batch-size "
                "--have.steps ...) and what changes (--want.steps ...), or --runs DIR."
            )
        rules = [asdict(advice) for advice in advise(have, want or None)] if have else []
        found = _read(self.runs) if self.runs is not None else []
        if self.json:
            print_json({"advice": rules, "runs": found})
            return 0
        if rules:
            table = pd.DataFrame(rules)[["rule", "lr", "weight_decay", "why", "source", "limits"]]
            print_table(table, title="Rules that apply (compare them; do not average)")
        for name in dict.fromkeys(finding["run"] for finding in found):
            print_lines([f"\n{name}"])
            print_lines((f"{f['sentence']} [{f['source']}]" for f in found if f["run"] == name), bullet="- ")
        return 0


def _given(part: Have | Want) -> dict[str, object]:
    return {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None}


def _read(folder: Path) -> list[dict[str, object]]:
    from bridge.findings import findings
    from empirics.records import Record

    one = Record(folder)
    records = [one] if one.status != "new" else [Record(path) for path in sorted(folder.glob("*-????????"))]
    with_recipe = [record for record in records if record.status != "new" and record.recipe is not None]
    if not with_recipe:
        raise InputError(f"runs = {str(folder)!r} holds no run that was predicted: train one with decaylab train.")
    return [asdict(finding) for record in with_recipe for finding in findings(record)]
