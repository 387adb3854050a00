"""Probes that watch steps: some of a run's training, gone on with in memory from a checkpoint, measured on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from empirics.continued import Continued
from empirics.measure import Bundle, Reading
from empirics.probes.bill import Bill
from empirics.probes.rotation import Quantities, Rotation
from empirics.probes.signal import Signal, TensorSignal
from empirics.probes.windows import Windows
from theory.errors import InputError, require, whole

SPANS = (1, 10, 100)
"""Steps over which angles are measured."""
Progress = Callable[[int, int, float], None]


def measure_steps(
    training: Continued, probes: Iterable[str], *, steps: int, lags: int = 50, progress: Progress | None = None
) -> list[Bundle]:
    """Train for some steps and watch them.

    Args:
        training: From `continued`; its network and optimizer are those of later steps afterwards.
        probes: Of `STEPPED`.
        steps: How many, at least 2, and no more than the run has left.
        lags: Longest lag of `signal`, at most steps - 1.
        progress: Called with steps done, steps in all and the loss.

    Returns:
        Readings and cost, one a probe; `gradients` is the cost in steps of this training.

    Raises:
        InputError: If a probe is unknown, a number not allowed, or a loss is not finite.
    """
    names, left = list(probes), training.steps - training.start
    require(whole("steps", steps, low=2) <= left, "steps", steps, f"at most {left}, which this checkpoint has left")
    for name in names:
        require(name in STEPPED, "probes", name, f"some of {', '.join(STEPPED)}")
    lags, bill = min(whole("lags", lags, low=1), steps - 1), Bill(next(training.model.parameters()).device)
    watching: dict[str, Any] = {}
    for name in names:
        with bill.bracket(name, training.optimizer):
            watching[name] = STEPPED[name][0](training, steps, lags)
    began = time.perf_counter()
    for number in range(steps):
        loss = training.step(training.start + number)[0].item()
        if not math.isfinite(loss):
            raise InputError(
                f"step {training.start + number} has the loss {loss}: there is nothing to measure after it."
            )
        if progress is not None:
            progress(number + 1, steps, loss)
    elapsed, charged = time.perf_counter() - began, {item.probe: item.seconds for item in bill.cost().items}
    step = (elapsed - math.fsum(charged.values())) / steps
    bundles = []
    for name, probe in watching.items():
        probe.close()
        readings = tuple(STEPPED[name][1](probe))
        bundles.append(Bundle(name, readings, charged.get(name, 0.0), charged.get(name, 0.0) / step))
    return bundles


def _signal(training: Continued, steps: int, lags: int) -> Signal:
    return Signal(training.model, training.optimizer, lags=lags)


def _remembered(probe: Signal) -> list[Reading]:
    """Gradient scale, lean on the weights, and the long-run variance of the update over its mean square."""
    readings = []
    for name, found in probe.result().items():
        readings += [
            Reading("c2", name, found.c2, found.c2_stderr),
            Reading("grad_cosine", name, found.radial, found.radial_stderr),
            Reading("update_sq", name, found.update_sq),
            Reading("update_memory", name, *long_run(found)),
        ]
    return readings


def long_run(found: TensorSignal) -> tuple[float, float]:
    """1 + 2 sum_k C_k/C_0 over the lags that were seen: by how much memory multiplies an update's random walk.

    Args:
        found: What `Signal` measured of a tensor.

    Returns:
        The ratio and its standard error, lags taken as independent and C_0 as known.

    Example:
        >>> from dataclasses import replace
        >>> white = TensorSignal(1.0, 0.1, 4.0, (4.0, 0.0), (0.1, 0.2), (1.0, 0.0), (0.0, 0.1), 0.0, 0.1, 9, 0.0)
        >>> long_run(white), long_run(replace(white, update_autocov=(4.0, 2.0)))
        ((1.0, 0.1), (2.0, 0.1))
    """
    first, *rest = found.update_autocov
    _, *errors = found.update_autocov_stderr
    if not first > 0:
        return math.nan, math.nan
    seen = [(c, e) for c, e in zip(rest, errors, strict=True) if not math.isnan(c)]
    return 1 + 2 * math.fsum(c for c, _ in seen) / first, 2 * math.hypot(*(e for _, e in seen)) / first


class _Turning:
    """Angles of every step, and over longer spans."""

    def __init__(self, training: Continued, steps: int) -> None:
        spans = tuple(n for n in SPANS if n <= steps)
        self.windows = Windows(training.model, training.optimizer, spans=spans, every=spans[-1])
        self.rotation = Rotation(training.model, training.optimizer, every=1)

    def close(self) -> None:
        """Remove the hooks."""
        self.windows.close()
        self.rotation.close()


def _turned(probe: _Turning) -> list[Reading]:
    """RMS angles, means of the rest, over all steps or windows, with the standard error of the mean over them."""
    rows: dict[tuple[str, str], list[float]] = {}
    kept = ("norm", "angle", "effective_lr", "relative_update", "grad_radial", "update_radial", "update_tangential")
    for table in [*probe.rotation.flush(), *probe.windows.flush()]:
        quantities: Quantities = table[1]
        for quantity, values in quantities.items():
            if quantity in kept or (quantity.startswith("angle_") and quantity != "angle_1"):
                for name, value in values.items():
                    rows.setdefault((quantity, name), []).append(value)
    return [Reading(quantity, name, *_mean(quantity, np.array(found))) for (quantity, name), found in rows.items()]


def _mean(quantity: str, values: np.ndarray) -> tuple[float, float]:
    """Mean (of angles the RMS) and its standard error, values of steps taken as independent."""
    squared = values**2 if quantity.startswith("angle") else values
    mean = float(squared.mean())
    error = float(squared.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else math.nan
    if not quantity.startswith("angle"):
        return mean, error
    return math.sqrt(mean), error / (2 * math.sqrt(mean)) if mean > 0 else error


STEPPED: dict[str, tuple[Callable[..., Any], Callable[[Any], list[Reading]]]] = {
    "signal": (_signal, _remembered),
    "rotation": (lambda training, steps, lags: _Turning(training, steps), _turned),
}
"""How each watches, and what it read, by the name that the command line takes."""
