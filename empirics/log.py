"""What the loop measures, kept on the device until it is written: losses, gradient norms, probes, time; divergence."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.directory import RunDirectory
from empirics.probes.divergence import Divergence, Trigger, snapshot
from empirics.ranks import ALONE, Ranks
from empirics.watching import Watching

FRESH = 200  # the training loss is the mean over so many of the latest steps, each on fresh data


class Log:
    """Collects measurements between flushes and recognises divergence.

    Args:
        config: The run.
        run: Its directory; records from `start` on are forgotten.
        model: The network.
        optimizer: Its optimizer.
        probes: The run's probes.
        start: The next step.
        ranks: The run's processes, all of which have a log; the first one's is written.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        model: nn.Module,
        optimizer: Optimizer,
        probes: Watching,
        *,
        start: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.run, self.model, self.optimizer, self.probes = config, run, model, optimizer, probes
        self.ranks = ranks
        run.truncate(start)
        ranks.wait()  # what it left is read by all
        self.events = [event for event in run.record.events if event["step"] < start]
        self.recent: deque[float] = deque(maxlen=FRESH)
        self.watch = Divergence()
        for line in run.record.lines():  # so that a resumed run sees what an uninterrupted one does
            self._observe(line["step"], line["values"])
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._steps, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def add(self, step: int, loss: Tensor, grad_norm: Tensor | None) -> None:
        """Keep one step's results; nothing waits for the device.

        Args:
            step: The step.
            loss: Scalar.
            grad_norm: Total norm before clipping, if there is clipping.
        """
        self._steps += 1
        if step % self.config.loss_every == 0 or step + 1 == self.config.steps:
            self._pending.append((step, loss, loss if grad_norm is None else grad_norm))
        if self.probes.due(step):
            self._pause_clock()
            self.probes.after(step)
            self.resume_clock()

    def flush(self, *, sync: bool = False) -> bool:
        """Fetch and write everything since the last flush.

        Args:
            sync: Wait until it is on the disk.

        Returns:
            False if the run has diverged: then its records end with that step, and divergence.json says why.
        """
        self._pause_clock()
        records, found, ended = self._fetch(), list[Trigger](), None
        for step in sorted(records):
            trigger = self._observe(step, records[step])
            if trigger is not None and (trigger.kind == "not finite" or trigger.kind in self.config.ends_on):
                ended = trigger
                break
            if trigger is not None:
                records[step][trigger.kind] = {"": trigger.score}
                found.append(trigger)
        self.run.append(((t, records[t]) for t in sorted(records) if ended is None or t <= ended.step), sync=sync)
        if found:
            self.events += [self._report(trigger) for trigger in found]
            self.run.write_json("events.json", self.events)
        if ended is not None:
            self.run.write_json("divergence.json", self._report(ended))
        return ended is None

    def write(self, step: int, values: Mapping[str, float | dict[str, float]]) -> None:
        """Write global values, or values by part, such as an evaluation's.

        Args:
            step: The latest step.
            values: Quantities and their values.
        """
        self.run.append(
            [(step, {name: value if isinstance(value, dict) else {"": value} for name, value in values.items()})]
        )

    def summary(self, *, last: bool) -> dict[str, float]:
        """What can be said of the losses so far.

        Args:
            last: Whether this is the end of the run.

        Returns:
            `train_loss_fresh` (nats), the mean loss of the latest 200 steps; at the end with clipping also
            `clipped_fraction`, the fraction of steps whose gradients were clipped.
        """
        values = {"train_loss_fresh": sum(self.recent) / len(self.recent)}
        if last and self.config.grad_clip and self.run.writes:
            total = self.run.record.series("grad_norm_total")
            values["clipped_fraction"] = float((total > self.config.grad_clip).mean())
        return values

    def write_timing(self, tokens_per_step: int) -> None:
        """Write timing.json: what depends on the machine and is no part of the measurements.

        Args:
            tokens_per_step: Tokens (or images) a step.
        """
        rate = self._steps * tokens_per_step / self._seconds
        timing = {"steps": self._steps, "seconds": self._seconds, "tokens_per_second": rate}
        cost = self.probes.bill.cost()
        bill = {
            "seconds": cost.seconds,
            "items": [asdict(item) for item in cost.items],
            "note": "shares of all the time since the run was last started, evaluations and checkpoints included",
        }
        note = "training only, with the probes of its steps, since the run was last started"
        self.run.write_json("timing.json", timing | {"note": note, "probes": bill})

    def resume_clock(self) -> None:
        """Count time again, after an evaluation or a checkpoint."""
        self._since = time.perf_counter()

    def _pause_clock(self) -> None:
        self._seconds += time.perf_counter() - self._since

    def _fetch(self) -> dict[int, dict[str, dict[str, float]]]:
        records: dict[int, dict[str, dict[str, float]]] = {}
        for step, values in self.probes.flush():
            records.setdefault(step, {}).update(values)
        pending, self._pending = self._pending, []
        if pending:
            fetched = self.ranks.mean(torch.stack([torch.stack([loss, norm]) for _, loss, norm in pending]))
            for (step, *_), (loss, norm) in zip(pending, fetched.tolist(), strict=True):
                values = records.setdefault(step, {})
                values["loss"] = {"": loss}
                if self.config.grad_clip:
                    values["grad_norm_total"] = {"": norm}
        return records

    def _observe(self, step: int, values: Mapping[str, Mapping[str, float]]) -> Trigger | None:
        """Take in the loss of one step, if it was recorded, and say what began there."""
        if "loss" not in values:
            return None
        loss = values["loss"][""]
        self.recent.append(loss)
        return self.watch.observe(step, loss, values.get("grad_norm_total", {"": 0.0})[""])

    def _report(self, trigger: Trigger) -> dict[str, Any]:
        """What divergence.json and events.json say; tensors as they are at the flush after the step."""
        saved = checkpoint.checkpoints(self.run.path / "checkpoints")
        parts = snapshot(self.model, self.optimizer)
        return {
            "step": trigger.step,
            "kind": trigger.kind,
            "trigger": str(trigger),
            "losses": [loss for loss in self.recent if math.isfinite(loss)][-10:],
            "checkpoint": saved[-1].name if saved else None,
            "tensors": {name: {**part.pop("weight"), **part} for name, part in parts.items()},
        }
