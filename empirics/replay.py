"""Was precision the cause? The last steps of a run again, on the same batches, in another arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.continued import continued
from empirics.directory import RunDirectory
from empirics.precision.arithmetic import EMULATED
from empirics.probes.divergence import Divergence, Trigger
from empirics.records import Record
from empirics.train import Progress, threads
from theory.errors import InputError, require, whole

Precision = Callable[[], AbstractContextManager[Any]]
Verdict = Literal["precision", "not precision", "not reproduced", "no divergence"]
Curve = dict[int, tuple[float, float]]  # loss and gradient norm by step

DTYPES = ("float32", "bf16", "float64")


@dataclass(frozen=True)
class Replay:
    """What happened when the last steps were run again."""

    verdict: Verdict
    """precision: the run's own arithmetic diverges again, the other does not. not precision: both diverge. not
    reproduced: the run diverged, its own arithmetic no longer does, so nothing follows. no divergence: there was none
    to explain."""
    dtype: str
    """Arithmetic of the replay."""
    steps: tuple[int, ...]
    """The steps."""
    original: tuple[float, ...]
    """Recorded losses (nats); nan where none was recorded, or it was not finite."""
    control: tuple[float, ...]
    """Losses of the same steps again in the run's own arithmetic; nan after it broke down."""
    replayed: tuple[float, ...]
    """Losses in the other arithmetic; nan after it broke down."""
    trigger: str | None
    """How the replay itself diverged, if it did."""
    sentence: str
    """The verdict in words."""


def replay(
    run: Record | Path | str,
    *,
    dtype: str = "float32",
    from_step: int | None = None,
    to_step: int | None = None,
    precision: Precision = nullcontext,
    recorded: Precision = nullcontext,
    beyond: int = 50,
    device: torch.device | str | None = None,
    cache: Path | None = None,
    window: int = 100,
    threshold: float = 10.0,
    progress: Progress | None = None,
) -> Replay:
    """Run the last steps of a run again, from its last checkpoint, in its own arithmetic and in another one.

    Both start from the same weights, optimizer state and random numbers, and see the same batches at the same rates;
    only the arithmetic differs. The first is the control: a divergence that does not come back cannot be blamed on
    precision. Each stops at the first value that is not finite; spikes count, too (`Divergence`, told the run's losses
    before). The other arithmetic goes on for some steps, so that a divergence that is only late is not taken for none.
    Damage done before the checkpoint is in both: an earlier `from_step` tells.

    Everything is in memory: the run directory is only read, and the random number generators are put back.

    Args:
        run: The run directory.
        dtype: float32, bf16 (autocast), float64 (weights, state and arithmetic), or an emulated format, spelled as in
            `TrainConfig.precision`: emulated:m10e5.
        from_step: Start from the newest usable checkpoint at or before this step; None: at or before the divergence,
            or the end. Without such a checkpoint the start is step 0.
        to_step: Last step; None: that of the divergence, or the last recorded one.
        precision: Makes a context in which each replayed step runs, such as an emulated precision.
        recorded: Likewise, the context in which the run itself ran.
        beyond: Steps after the divergence that the other arithmetic has to survive, as far as the run was planned.
        device: Where; if omitted, CUDA if there is one, otherwise the CPU.
        cache: Folder for tokens, see `TextData.open`.
        window: Of `Divergence`.
        threshold: Of `Divergence`.
        progress: Called with steps done and steps in all of one of the two trainings, and the loss.

    Returns:
        Verdict and losses.

    Raises:
        InputError: If it is no run directory, its data have changed, or there is no step to replay.

    Example:
        >>> replay("nowhere")
        Traceback (most recent call last):
        theory.errors.InputError: nowhere is not a run directory: it has no config.json.
    """
    emulated = isinstance(dtype, str) and EMULATED.fullmatch(dtype) is not None
    allowed = f"one of {', '.join(DTYPES)}, or an emulated format, such as emulated:m10e5"
    require(emulated or dtype in DTYPES, "dtype", dtype, allowed)
    record = run if isinstance(run, Record) else Record(Path(run))
    config: TrainConfig = record.config
    history = losses(record)
    broke = record.divergence
    last = to_step if to_step is not None else broke["step"] if broke else max(history, default=-1)
    last = min(whole("to_step", last, low=-1), config.steps - 1)
    begin = whole("from_step", last if from_step is None else from_step, low=-1)
    require(0 <= begin <= last, "from_step", from_step, f"one of the recorded steps 0 .. {last}")

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = replace(config, precision="float32" if dtype == "float64" else dtype, compile=False)
    random = checkpoint.rng_state()
    try:
        with threads(config.threads):
            start, control = rerun(record, config, begin, last, where, cache, context=recorded, progress=progress)
            watch = lambda curve: first_trigger(history, start, curve, window=window, threshold=threshold)
            seen = {step: (loss, 0.0) for step, loss in history.items() if start <= step <= last}
            original = broke["trigger"] if broke and broke["step"] <= last else watch(seen)
            end = last if original is None else min(last + whole("beyond", beyond), config.steps - 1)
            double = dtype == "float64"
            _, replayed = rerun(
                record, wanted, begin, end, where, cache, context=precision, double=double, progress=progress
            )
    finally:
        checkpoint.set_rng_state(random)

    again, other = watch(control), watch(replayed)
    verdict: Verdict = (
        "no divergence"
        if original is None
        else "not reproduced"
        if again is None
        else "not precision"
        if other is not None
        else "precision"
    )
    steps = range(start, end + 1)
    original_losses, control_losses, replayed_losses = (
        tuple(curve.get(step, (math.nan, 0.0))[0] for step in steps) for curve in (seen, control, replayed)
    )
    apart = [abs(a - b) for a, b in zip(control_losses, replayed_losses, strict=True)]
    worst = max(filter(math.isfinite, apart), default=0.0)
    arithmetic = dtype if precision is nullcontext else f"{dtype} inside the given precision"
    span = f"Steps {start} to {end} of {record.name}, replayed in {arithmetic}"
    milder = other is not None and other.kind == "spike" and again is not None and again.kind == "not finite"
    but = ", though all stays finite: the instability was there, precision only made it worse" if milder else ""
    judged = sum(step < last for step in history) >= window // 2
    spikes = " and free of spikes" if judged else " (it is too early to tell spikes from descent)"
    sentence = {
        "precision": f"{span}, stay finite{spikes}, and diverge again in the run's own arithmetic "
        f"({again}): precision was the cause.",
        "not precision": f"{span}, diverge as well ({other}){but}: precision was not the cause.",
        "not reproduced": f"{span}: the recorded divergence ({original}) does not come back in the run's own "
        "arithmetic, so the cause stays open; was it run on another device, compiled, or under an emulated precision?",
        "no divergence": f"{span}: the run did not diverge there; losses differ by at most {worst:.2g} nats"
        + (f", but the replay does ({other})." if other else "."),
    }[verdict]
    return Replay(
        verdict=verdict,
        dtype=dtype,
        steps=tuple(steps),
        original=original_losses,
        control=control_losses,
        replayed=replayed_losses,
        trigger=None if other is None else str(other),
        sentence=sentence,
    )


def explain(record: Record, config: TrainConfig, *, device: torch.device | str, cache: Path | None = None) -> None:
    """Replay a run that diverged in float32, and store the result as `replay` in its divergence.json.

    Args:
        record: The run, no longer written.
        config: Its configuration.
        device: As in `replay`.
        cache: As in `replay`.
    """
    try:
        found = asdict(replay(record, device=device, cache=cache))
    except InputError as error:  # such as data that are gone: the divergence stays the result
        found = {"verdict": "not reproduced", "sentence": str(error)}
    clean = {name: [_plain(x) for x in value] if isinstance(value, tuple) else value for name, value in found.items()}
    with RunDirectory(record.path, config) as run:
        run.write_json("divergence.json", {**(record.divergence or {}), "replay": clean})


def _plain(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None


def rerun(
    record: Record,
    config: TrainConfig,
    begin: int,
    last: int,
    device: torch.device,
    cache: Path | None,
    *,
    context: Precision,
    double: bool = False,
    progress: Progress | None = None,
) -> tuple[int, Curve]:
    """Train in memory from the newest usable checkpoint at or before `begin` through step `last`.

    Args:
        record: The run whose checkpoints are read.
        config: Its configuration, with the precision wanted.
        begin: Latest start.
        last: Last step.
        device: Where.
        cache: Folder for tokens.
        context: Makes the context of each step.
        double: Whether weights, state and inputs are float64.
        progress: As in `replay`.

    Returns:
        The first step, and loss and gradient norm of every step through the first that is not finite.

    Raises:
        InputError: If the data have changed since.
    """
    data = config.data.open(cache)
    if data.hash != record.description["data_hash"]:
        raise InputError(f"{record.path} was trained on other data: source {config.data.source!r} has changed since.")
    training = continued(config, data, folder=record.path, begin=begin, device=device, double=double)
    curve: Curve = {}
    for step in range(training.start, last + 1):
        with context():
            loss, norm = training.step(step)
        curve[step] = loss.item(), 0.0 if norm is None else norm.item()
        if progress is not None:
            progress(step + 1 - training.start, last + 1 - training.start, curve[step][0])
        if not all(map(math.isfinite, curve[step])):
            break
    return training.start, curve


def losses(record: Record) -> dict[int, float]:
    """The recorded losses by step; nan where one was not finite."""
    table = record.metrics()
    rows = table.loc[(table["quantity"] == "loss") & (table["tensor"] == "")]
    return dict(zip(rows["step"].tolist(), rows["value"].tolist(), strict=True))


def first_trigger(
    history: dict[int, float], start: int, curve: Curve, *, window: int, threshold: float
) -> Trigger | None:
    """The first sign of divergence in a curve that continues a run's history; late drift is none."""
    watch = Divergence(window=window, threshold=threshold)
    for step, loss in history.items():
        if step < start:
            watch.observe(step, loss)
    found = (watch.observe(step, *point) for step, point in curve.items())
    return next((trigger for trigger in found if trigger is not None and trigger.kind != "drift"), None)
