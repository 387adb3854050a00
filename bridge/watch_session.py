"""The hooks of a watch and what they fill: measures, writes and ends without ever disturbing the training."""

from __future__ import annotations

import atexit
import logging
import math
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from bridge.sinks import Sink
from bridge.watch_files import Files, WatchConfig
from bridge.watch_forecast import Forecast
from bridge.watch_meter import Meter, after_closure
from bridge.watch_rates import RateLog
from bridge.watch_subject import Subject
from empirics.directory import Values
from empirics.probes.bill import Bill
from empirics.probes.divergence import Divergence, snapshot
from empirics.records import Record
from theory.errors import InputError

logger = logging.getLogger("decaylab")
RECENT = 10  # measured steps that the table's angles are the root mean square of
_open: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A subject with hooks on its optimizer, measuring until it is closed.

    Args:
        subject: What is watched.
        every: Measure every so many steps.
        flush_every: Write every so many steps.
        name: First part of the run directory's name.
        root: Folder of run directories.
        sinks: Not yet open.

    Raises:
        InputError: If a parameter is watched already.
    """

    def __init__(
        self, subject: Subject, *, every: int, flush_every: int, name: str, root: Path, sinks: Sequence[Sink]
    ) -> None:
        for other in tuple(_open):
            if common := other.subject.held & subject.held:
                raise InputError(
                    f"{subject.name_of(next(iter(common)))} is watched already, in {other.path}: close that watch "
                    "first; a parameter can have one optimizer and one watch."
                )
        self.subject, self._every, self.flush_every = subject, every, flush_every
        self.prediction: Forecast | None = None
        """What was predicted before step 0, if enough was announced."""
        self.notes: list[str] = []
        """What the user should know, in sentences; also in the run directory's notes.json."""
        self._rates, self._meter, self._files = RateLog(), None, None
        self._host, self._device = Bill(), Bill(subject.device)
        self._handles: list[Any] = []
        self._logged: list[tuple[int, str, Tensor | float]] = []
        self._recent: deque[tuple[int, Values]] = deque(maxlen=RECENT)
        self._divergence = Divergence()
        self._measured: list[int] = []
        self._ended = False
        if not subject.measures:  # rank 0 of DistributedDataParallel does
            return
        with self._host.charge("set-up"):
            self._meter = Meter(subject.model, subject.optimizer, every=every)
            self.prediction, announced = subject.ahead()
            if subject.writes:
                config = WatchConfig.now(every=every, name=name, parameters=subject.parameters, **subject.summary())
                self._files = Files(config, root, sinks, self.prediction, subject.device)
            self._note(*announced)
        self._attach(subject.optimizer)

    def _attach(self, optimizer: torch.optim.Optimizer) -> None:
        reference: weakref.ref[Session] = weakref.ref(self)
        eager: Any = torch.compiler.disable
        handle = register_optimizer_step_post_hook(eager(_of_any_optimizer(reference)))
        weakref.finalize(self, handle.remove)  # this hook is torch's for as long as the process lives
        self._at_exit = _at_exit(reference)
        atexit.register(self._at_exit)
        self._handles = [
            handle,
            optimizer.register_step_pre_hook(eager(self._before_step)),
            optimizer.register_step_post_hook(eager(self._after_step)),
        ]
        _open.add(self)

    @property
    def path(self) -> Path | None:
        """The run directory; None on ranks that write none."""
        return self._files.path if self._files is not None else None

    @property
    def record(self) -> Record:
        """The run directory, opened for reading.

        Raises:
            InputError: On a rank that writes none.
        """
        if self._files is None:
            raise InputError("This process keeps no record: the one of rank 0 does.")
        return self._files.record

    @property
    def step(self) -> int:
        """Number of the next step, as far as is known without waiting for the device."""
        return self.subject.start + self._rates.steps

    def log(self, *, step: int | None = None, **values: Tensor | float) -> None:
        """Record the loss, or any other number; nothing waits for the device.

        Args:
            step: Its step; the latest one that was made if omitted (call it after `optimizer.step()`). Several values
                of one step, from accumulated gradients, are averaged.
            **values: Numbers or tensors of one element, by name: `loss` in nats.
        """
        for name, value in values.items():
            number = value.detach() if isinstance(value, Tensor) else value
            if isinstance(number, Tensor) and number.numel() == 1:
                number = number.clone()
            elif isinstance(number, Tensor) or not isinstance(number, (int, float)):
                self._note(f"log({name}=...) was ignored: it must be one number.")
                continue
            if self._meter is not None and not self._ended:
                call = max(self._rates.calls - 1, 0) if step is None else -1 - step  # < 0: a step, not a call
                self._logged.append((call, name, number))

    def flush(self) -> None:
        """Fetch what was measured and write it; waits for the device."""
        if self._meter is None or self._ended:
            return
        with self._host.charge("fetch"):
            self._rates.fetch()
            records: dict[int, dict[str, Any]] = {
                self.subject.start + step: dict(values) for step, values in self._meter.flush(self._rates)
            }
        with self._host.charge("write"):
            self._take_logged(records)
            ordered = sorted(records.items())
            measured = [(step, values) for step, values in ordered if "norm" in values]
            self._recent += measured
            self._measured += [step for step, _ in measured]
            if self._files is not None:
                self._files.write(ordered)
        self._note(*self.subject.changes(self._meter, self._rates))
        self._judge(ordered)

    def close(self, *, why: str = "") -> None:
        """Write what is left, remove the hooks, let go of the run directory; a second call does nothing.

        Args:
            why: What ended the run early, for its error.txt.
        """
        self._safely(self.flush)
        if self._meter is not None and not self._ended:
            self._finish(why or self._early())
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()

    # ---- hooks: nothing in here may raise, or wait for the device; a compiled optimizer.step breaks its graph at them

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if self._ended or self._meter is None:
            return None
        with self._host.charge("rates"):
            self._safely(lambda: self._rates.read(optimizer))
        meter = self._meter
        return (
            after_closure(args, kwargs, lambda: self._measure(lambda: meter.before(optimizer))) if meter.due else None
        )

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._ended or self._meter is None:
            return
        if self._meter.due:
            self._measure(self._meter.after)
        else:
            self._meter.after()
        self._safely(lambda: self._rates.done(optimizer))
        if self._rates.calls % self.flush_every == 0:
            self._safely(self.flush)

    def _measure(self, action: Callable[[], None]) -> None:
        with self._device.charge("rotation"):
            self._safely(action)

    def _safely(self, action: Callable[[], object]) -> None:
        """Whatever goes wrong ends the watch, in one sentence, and not the training."""
        if self._ended:
            return
        try:
            action()
        except Exception as error:
            text = f"The watch ended, training goes on: {type(error).__name__}: {error}"
            logger.warning(text)
            try:
                self._finish(text)
            except Exception as another:
                logger.warning("%s could not be closed in order (%s).", self.path, another)

    # ---- what flush and close are made of

    def _take_logged(self, records: dict[int, dict[str, Any]]) -> None:
        pending, self._logged = self._logged, []
        if not pending:
            return
        numbers = torch.stack([torch.as_tensor(v, dtype=torch.float64).reshape(()).cpu() for *_, v in pending]).tolist()
        gathered: dict[tuple[int, str], list[float]] = {}
        for (call, name, _), number in zip(pending, numbers, strict=True):
            step = -1 - call if call < 0 else self.subject.start + self._rates.step_near(call)
            gathered.setdefault((step, name), []).append(number)
        for (step, name), values in gathered.items():
            mean = sum(values) / len(values)
            records.setdefault(step, {})[name] = {"": mean}
            looked_at = name == "loss" and (step % self._every == 0 or not math.isfinite(mean))  # medians cost time
            if looked_at and (trigger := self._divergence.observe(step, mean)) is not None:
                self._note(f"{trigger}.")

    def _judge(self, records: Sequence[tuple[int, Values]]) -> None:
        """End the watch at weights that are not finite: nothing comes back from there."""
        for step, values in records:
            broken = [name for name, norm in values.get("norm", {}).items() if not math.isfinite(norm)]
            if not broken:
                continue
            text = f"norm of {broken[0]} is not finite"
            self._note(f"step {step}: {text}; the watch ended there.")
            if self._files is not None:
                losses = [each["loss"][""] for _, each in records if "loss" in each and math.isfinite(each["loss"][""])]
                state = (
                    {} if self.subject.sharded else snapshot(self.subject.model)
                )  # of shards: all ranks would have to
                report = {"step": step, "trigger": text, "losses": losses[-10:], "checkpoint": None, "tensors": state}
                self._files.run.write_json("divergence.json", report)
            self._finish("")
            return

    def _note(self, *notes: str) -> None:
        new = [note for note in dict.fromkeys(notes) if note not in self.notes]
        self.notes += new
        for note in new:
            logger.warning(note)
        if new and self._files is not None:
            self._files.notes(self.notes)

    def _early(self) -> str:
        total = self.subject.total_steps
        if not self._rates.calls:
            return "It ended before its first step."
        return f"It ended after {self.step} of {total} steps." if total is not None and self.step < total else ""

    def _finish(self, unfinished: str) -> None:
        """Let go of everything but the hooks, which torch may be walking through at this moment: they do nothing."""
        self._ended = True
        _open.discard(self)
        atexit.unregister(self._at_exit)
        if self._files is None:
            return
        try:
            seen = self.subject.seen(self._rates) if self._measured else None
            if seen is not None and seen.predictions:
                self._files.predict_late(seen)
            departure = self.subject.departure(self._rates)
            self._note(*[departure] if departure else [])
        finally:
            self._files.close(unfinished=unfinished)


def _of_any_optimizer(reference: weakref.ref[Session]) -> Callable[..., None]:
    """A hook on all optimizers that notices another one over a watched parameter: the laws do not apply to it."""
    known: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        session = reference()
        if session is None or optimizer is session.subject.optimizer or optimizer in known:
            return
        known.add(optimizer)
        session._safely(lambda: session._note(*session.subject.shared_with(optimizer)))

    return hook


def _at_exit(reference: weakref.ref[Session]) -> Callable[[], None]:
    def close() -> None:
        session = reference()
        if session is not None:
            error = getattr(sys, "last_value", None)  # of the exception that ended the script, if one did
            session.close(why=f"{type(error).__name__}: {error}" if error is not None else "")

    return close
