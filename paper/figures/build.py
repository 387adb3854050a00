"""From a figure's name to its files: run what is missing, reduce, draw, judge, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bridge.runs import predict_run
from empirics.config import TrainConfig
from empirics.environment import environment
from empirics.records import Record
from empirics.sweep import run_all
from paper import style
from paper.figures.claims import SEEDS, Claim
from paper.figures.order import with_followed
from paper.figures.setups import located, seconds
from paper.figures.spec import Spec
from paper.figures.table import Table, labelled, merged, read_table, stable, write_table

RESULTS = Path(__file__).parent.parent / "results"
"""Where committed results are."""
LINE = 0.125
"""Height of a line below the drawing, inches."""
DONE = ("finished", "diverged")


@dataclass(frozen=True)
class Outcome:
    """What became of a figure."""

    spec: Spec
    """The figure."""
    table: Table
    """Its numbers."""
    claims: tuple[Claim, ...]
    """Its claims."""
    missing: tuple[TrainConfig, ...]
    """Runs that are not in the table."""
    files: tuple[Path, ...]
    """What was written."""

    @property
    def verdict(self) -> str:
        """One of pass, fail and incomplete (a run is missing)."""
        return verdict(self.claims, complete=not self.missing)


def verdict(claims: Sequence[Claim], *, complete: bool) -> str:
    """A figure's verdict.

    Args:
        claims: Its claims.
        complete: Whether all its runs are in the table.

    Returns:
        incomplete, pass or fail.
    """
    if not complete or not claims:
        return "incomplete"
    return "pass" if all(claim.passed for claim in claims) else "fail"


def missing(spec: Spec, table: Table | None, scale: str) -> tuple[TrainConfig, ...]:
    """Runs of a figure that its table lacks.

    Args:
        spec: The figure.
        table: Its table, if there is one.
        scale: The scale.

    Returns:
        Their configurations.
    """
    return tuple(config for config in spec.configs(scale) if table is None or config.directory not in table.runs)


def build(
    spec: Spec,
    *,
    scale: str = "cpu",
    runs: Path = Path("runs"),
    results: Path = RESULTS,
    data: str | None = None,
    jobs: int = 1,
    train: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Make a figure: from its table alone if that is complete, otherwise by running what is missing first.

    Args:
        spec: The figure.
        scale: cpu, gpu or paper.
        runs: Folder of run directories.
        results: Folder of results; those of a scale are in its subfolder.
        data: Where CIFAR-10 is (parquet:DIR); without it, its runs are left out.
        jobs: Runs at a time.
        train: Whether to run what is missing; if not, what is there is reduced and drawn.
        say: Told what is done, in sentences.

    Returns:
        The outcome; its files are the table, the PDF, the PNG.

    Raises:
        InputError: If the figure is not made at that scale, or the data cannot be read.
        Interrupted: After Ctrl-C; the same command continues.
    """
    path = results / scale / f"{spec.name}.parquet"
    table = (
        simulated(spec, scale, path) if spec.simulation else gathered(spec, scale, path, runs, data, jobs, train, say)
    )
    left = missing(spec, table, scale)
    claims = tuple(spec.claims(table.rows)) if len(table.rows) else ()
    files: tuple[Path, ...] = ()
    if len(table.rows):
        with style.style():
            figure = spec.draw(table.rows)
            stamp(figure, claims)
        files = (path, *style.save(figure, path.with_suffix("")))
    return Outcome(spec, table, claims, left, files)


def simulated(spec: Spec, scale: str, path: Path) -> Table:
    """The table of a figure without runs, computed anew if what it depends on has changed.

    Args:
        spec: The figure.
        scale: The scale.
        path: Its table.

    Returns:
        The table.
    """
    assert spec.simulation is not None
    spec.configs(scale)  # refuses other scales
    table = read_table(path)
    if table is None or not up_to_date(spec, table, scale):
        inputs = json.loads(json.dumps(spec.inputs[scale]))
        table = Table(spec.simulation(scale), environments=[stable(environment(torch.device("cpu")))], inputs=inputs)
        write_table(table, path)
    return table


def up_to_date(spec: Spec, table: Table | None, scale: str) -> bool:
    """Whether a simulation's table was made from what the figure asks for now.

    Args:
        spec: A figure without runs.
        table: Its table, if there is one.
        scale: The scale.

    Returns:
        False if it must be computed.
    """
    return table is not None and table.inputs == json.loads(json.dumps(spec.inputs.get(scale)))


def gathered(
    spec: Spec,
    scale: str,
    path: Path,
    runs: Path,
    data: str | None,
    jobs: int,
    train: bool,
    say: Callable[[str], None],
) -> Table:
    """The table of a figure with runs: what it holds already, and what the run directories add.

    Args:
        spec: The figure.
        scale: The scale.
        path: Its table.
        runs: Folder of run directories.
        data: Where CIFAR-10 is.
        jobs: Runs at a time.
        train: Whether to run what is missing.
        say: Told what is done.

    Returns:
        The table, written if it changed.
    """
    old = read_table(path)
    wanted = missing(spec, old, scale)
    here = [config for config in wanted if data is not None or located(config, "parquet:-") is config]
    if len(here) < len(wanted):
        say(f"{spec.name}: {len(wanted) - len(here)} runs need CIFAR-10 (--data parquet:DIR) and are left out.")
    local = {config.directory: located(config, data) for config in here}
    todo = [config for config in local.values() if Record(runs / config.directory).status not in DONE]
    if todo and train:
        hours = sum(map(seconds, todo)) / 3600 / jobs
        say(f"{spec.name}: {len(todo)} of {len(spec.configs(scale))} runs to do, about {hours:.1f} hours.")
        done = lambda config: Record(runs / config.directory).status in DONE
        needed = with_followed(todo, spec.configs(scale), done)
        run_all(needed, runs, workers=jobs, predict=predict_run if spec.predicted else None)
    new = {}
    for config in here:
        record = Record(runs / local[config.directory].directory)
        if record.status in DONE:
            new[config.directory] = record, labelled(spec.reduce(record), config, spec.labels(config))
        elif record.error:
            say(f"{record.name}: {record.error}")
    names = [config.directory for config in spec.configs(scale)]
    table = merged(old, new).only(names) if new or old is None else old.only(names)
    if new:
        write_table(table, path)
    return table


def stamp(figure: Figure, claims: Sequence[Claim]) -> None:
    """Write the verdict below a drawing: one quiet line, and a line for every claim that failed.

    Args:
        figure: The drawing, in constrained layout; it grows downwards.
        claims: Its claims.
    """
    decided = [claim for claim in claims if claim.seeds >= SEEDS]
    failed = [claim for claim in decided if not claim.passed]
    counts = sorted({claim.seeds for claim in decided})
    seeds = "–".join(str(count) for count in ((counts[0], counts[-1]) if len(counts) > 1 else counts))
    text = f"{len(decided) - len(failed)} of {len(claims)} checks hold" + (f", {seeds} seeds" if counts else "")
    lines = [(text, style.QUIET)]
    if len(decided) < len(claims):
        lines.append((f"not decided for lack of seeds: {len(claims) - len(decided)} checks", style.VERMILLION))
    for claim in failed:
        numbers = f"{claim.measured:.3g} [{claim.low:.3g}, {claim.high:.3g}]"
        lines.append((f"fails: {claim.claim}: {numbers}, bound {claim.sign} {claim.bound:.3g}", style.VERMILLION))
    width, height = figure.get_size_inches()
    extra = LINE * len(lines) + 0.02
    figure.set_size_inches(width, height + extra)
    share = extra / (height + extra)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, share, 1, 1 - share))  # pyright: ignore[reportCallIssue]
    for position, (line, colour) in enumerate(lines):
        y = (extra - LINE * (position + 0.9)) / (height + extra)
        figure.text(0.995, y, line, ha="right", va="bottom", fontsize=6.5, color=colour)
