"""What the loop measures, kept on the device until it is written: losses, gradient norms, rotation, time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.directory import RunDirectory
from empirics.probes.rotation import Rotation
from empirics.tensors import tensors

TOTALS = ("loss", "grad_norm_total")  # a run has diverged when one of them is not finite
FRESH = 200  # the training loss is the mean over so many of the latest steps, each on fresh data


class Log:
    """Collects measurements between flushes and recognises divergence.

    Args:
        config: The run.
        run: Its directory; records from `start` on are forgotten.
        model: The network.
        optimizer: Its optimizer.
        start: The next step.
    """

    def __init__(
        self, config: TrainConfig, run: RunDirectory, model: nn.Module, optimizer: Optimizer, *, start: int
    ) -> None:
        self.config, self.run, self.model = config, run, model
        run.truncate(start)
        losses = [line["values"]["loss"][""] for line in run.record.lines() if "loss" in line["values"]]
        self.recent: deque[float] = deque(losses, maxlen=FRESH)
        self.rotation = None
        if config.rotation_every:
            self.rotation = Rotation(model, optimizer, every=config.rotation_every, start=start)
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

    def flush(self, *, sync: bool = False) -> bool:
        """Fetch and write everything since the last flush.

        Args:
            sync: Wait until it is on the disk.

        Returns:
            False if the run has diverged: then its records end with that step, and divergence.json says why.
        """
        self._pause_clock()
        records = self._fetch()
        broken = next((step for step in sorted(records) if not all(map(math.isfinite, totals(records[step])))), None)
        self.run.append(((t, records[t]) for t in sorted(records) if broken is None or t <= broken), sync=sync)
        if broken is not None:
            self._diverged(broken, records[broken])
        return broken is None

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
        if last and self.config.grad_clip:
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
        self.run.write_json("timing.json", timing | {"note": "training only, since the run was last started"})

    def resume_clock(self) -> None:
        """Count time again, after an evaluation or a checkpoint."""
        self._since = time.perf_counter()

    def _pause_clock(self) -> None:
        self._seconds += time.perf_counter() - self._since

    def _fetch(self) -> dict[int, dict[str, dict[str, float]]]:
        records: dict[int, dict[str, dict[str, float]]] = {}
        for step, values in self.rotation.flush() if self.rotation is not None else []:
            records.setdefault(step, {}).update(values)
        pending, self._pending = self._pending, []
        if pending:
            fetched = torch.stack([torch.stack([loss, norm]) for _, loss, norm in pending]).tolist()
            for (step, *_), (loss, norm) in zip(pending, fetched, strict=True):
                self.recent.append(loss)
                values = records.setdefault(step, {})
                values["loss"] = {"": loss}
                if self.config.grad_clip:
                    values["grad_norm_total"] = {"": norm}
        return records

    def _diverged(self, step: int, values: dict[str, dict[str, float]]) -> None:
        trigger = next(name for name in TOTALS if not math.isfinite(values.get(name, {"": 0.0})[""]))
        saved = checkpoint.checkpoints(self.run.path / "checkpoints")
        report = {
            "step": step,
            "trigger": f"{trigger} is {values[trigger]['']}",
            "losses": [loss for loss in self.recent if math.isfinite(loss)][-10:],
            "checkpoint": saved[-1].name if saved else None,
            "tensors": {view.name: state(view.view()) for view in tensors(self.model)},
        }
        self.run.write_json("divergence.json", report)


def totals(values: dict[str, dict[str, float]]) -> list[float]:
    """The global values that must be finite."""
    return [values[name][""] for name in TOTALS if name in values]


def state(tensor: Tensor) -> dict[str, float | int | None]:
    """How a tensor looks when the divergence was noticed (at the flush after the step).

    Args:
        tensor: The weights.

    Returns:
        Norm and largest magnitude of its finite elements, and how many are not finite.
    """
    finite = tensor[torch.isfinite(tensor)].double()
    largest = finite.abs().max().item() if finite.numel() else None
    return {"norm": finite.norm().item(), "largest": largest, "not_finite": tensor.numel() - finite.numel()}
