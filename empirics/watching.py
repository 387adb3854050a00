"""The probes of a run: attached to its optimizer, called after its steps, measurements merged, the bill kept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from empirics.config import TrainConfig
from empirics.data import Images, Text
from empirics.evaluate import JACOBIAN_IMAGES
from empirics.measure import PROBES, Subject, quantities
from empirics.models import GPT2
from empirics.plan import ACTIVATIONS_EVERY
from empirics.probes.activations import Activations
from empirics.probes.bill import Bill
from empirics.probes.rotation import Measurement, Quantities, Rotation
from empirics.probes.signal import Signal, TensorSignal
from empirics.probes.windows import Windows
from theory.errors import InputError

SNAPSHOTS = ("jacobian", "hessian_trace", "hessian_top", "noise_scale")


class Watching:
    """Every probe of one run; training with them is bitwise the training without.

    Rotation, windows, signal and activations watch the steps themselves. The others measure the network after a step,
    as evaluations do, in float32 and on examples of their own; one that fails says so in a warning and leaves a gap.

    Args:
        config: The run.
        model: The network, on its device.
        optimizer: Its optimizer.
        data: The opened data.
        start: The next step.
        state: `state_dict` of the checkpoint from which the run goes on, if it does.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        optimizer: Optimizer,
        data: Text | Images,
        *,
        start: int,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        plan, device = config.probes, next(model.parameters()).device
        self.bill, self._device, self._pending = Bill(device), device, list[Measurement]()
        when = lambda name, auto=0: plan.schedule(name, steps=config.steps, auto=auto)
        self.rotation = self.windows = self.signal = self.activations = None
        if config.rotation_every:
            with self.bill.bracket("rotation", optimizer):
                self.rotation = Rotation(model, optimizer, every=config.rotation_every, start=start)
        if plan.windows:
            every = plan.windows_every or None
            self.windows = Windows(model, optimizer, spans=plan.windows, every=every, start=start, bill=self.bill)
        if when("signal") is not None:
            with self.bill.bracket("signal", optimizer):
                self.signal = Signal(model, optimizer, lags=plan.lags, seed=config.seed)
        activations = when("activations", ACTIVATIONS_EVERY if isinstance(model, GPT2) else 0)
        self._compiled = config.compiled(device.type)
        if activations is not None:
            self.activations = Activations(
                model, optimizer, every=activations, start=start, sampled=self._compiled, bill=self.bill
            )
        self._due = {name: schedule for name in (*SNAPSHOTS, "signal") if (schedule := when(name)) is not None}
        for name, probe in self._stateful.items():
            probe.load_state_dict((state or {}).get(name, {}))

    def before(self, step: int) -> None:
        """Called before a step: a compiled model is measured on a forward pass of its own.

        Args:
            step: The step.
        """
        if self._compiled and self.activations is not None and self.activations.schedule.due(step):
            inputs = self.data.batch(step, self.config.batch_size)[0][: self.config.micro_batch]
            low = self.config.arithmetic(self._device)
            with torch.autocast(self._device.type, dtype=low.dtype, enabled=low.autocast):
                self.activations.sample(lambda: self.model(inputs.to(self._device)))

    def due(self, step: int) -> list[str]:
        """The probes that have something to do after a step.

        Args:
            step: The step.

        Returns:
            Their names. Images' Jacobian is left to the evaluation where there is one: it is the same number. A window
            of `signal` has more than one step.
        """
        names = {name: None for name, schedule in self._due.items() if schedule.due(step)}
        done, every = step + 1, self.config.eval_every
        if isinstance(self.data, Images) and (done == self.config.steps or (every > 0 and done % every == 0)):
            names.pop("jacobian", None)
        if step == 0:
            names.pop("signal", None)
        return list(names)

    def after(self, step: int) -> None:
        """Called after a step, when something is due.

        Args:
            step: The step.
        """
        for name in self.due(step):
            with self.bill.charge(name):
                try:
                    self._pending.append((step, self._measured(name, step)))
                except (InputError, np.linalg.LinAlgError) as error:
                    warnings.warn(f"{name} was not measured after step {step}: {error}", stacklevel=2)

    def _measured(self, name: str, step: int) -> Quantities:
        """What one probe finds after a step."""
        if name == "signal":
            assert self.signal is not None
            found = memory(self.signal.result())
            self.signal.forget()
            return found
        plan, images = self.config.probes, isinstance(self.data, Images)
        examples = JACOBIAN_IMAGES if name == "jacobian" and images else plan.examples
        subject = Subject.of(self.model, self.data, examples=examples, rel_error=plan.rel_error, seed=step)
        names = ("jacobian", "jacobian_inputs") if name == "jacobian" and images else (name,)
        return quantities([reading for each in names for reading in PROBES[each](subject)])

    def flush(self) -> list[Measurement]:
        """Fetch everything measured since the last flush.

        Returns:
            Pairs (step, {quantity: {tensor: value}}).
        """
        measured: list[Measurement] = []
        if self.rotation is not None:
            with self.bill.charge("rotation"):
                measured += self.rotation.flush()
        for probe in (self.activations, self.windows):
            measured += probe.flush() if probe is not None else []
        pending, self._pending = self._pending, []
        return measured + pending

    def close(self) -> None:
        """Remove every hook."""
        for probe in (self.rotation, self.windows, self.signal, self.activations):
            if probe is not None:
                probe.close()

    def state_dict(self) -> dict[str, Any]:
        """What probes hold between steps, so that a resumed run measures what an uninterrupted one does."""
        return {name: probe.state_dict() for name, probe in self._stateful.items()}

    @property
    def _stateful(self) -> dict[str, Windows | Signal]:
        found = {"windows": self.windows, "signal": self.signal}
        return {name: probe for name, probe in found.items() if probe is not None}


def memory(found: dict[str, TensorSignal]) -> Quantities:
    """What `signal` measured, as a run records it; lags of a tensor are "<tensor>[<lag>]".

    Args:
        found: By tensor.

    Returns:
        `signal` (autocorrelation of the gradient), `update_autocov`, `c2`, `update_sq`, `grad_cosine`, and standard
        errors of all but `update_sq`; without lags that were not seen.
    """
    lists: dict[str, dict[str, tuple[float, ...]]] = {
        "signal": {name: x.grad_autocov for name, x in found.items()},
        "signal_stderr": {name: x.grad_autocov_stderr for name, x in found.items()},
        "update_autocov": {name: x.update_autocov for name, x in found.items()},
        "update_autocov_stderr": {name: x.update_autocov_stderr for name, x in found.items()},
    }
    table = {
        quantity: {f"{name}[{lag}]": value for name, row in rows.items() for lag, value in enumerate(row)}
        for quantity, rows in lists.items()
    }
    table |= {
        "c2": {name: x.c2 for name, x in found.items()},
        "c2_stderr": {name: x.c2_stderr for name, x in found.items()},
        "update_sq": {name: x.update_sq for name, x in found.items()},
        "grad_cosine": {name: x.radial for name, x in found.items()},
        "grad_cosine_stderr": {name: x.radial_stderr for name, x in found.items()},
    }
    return {q: {k: value for k, value in each.items() if not math.isnan(value)} for q, each in table.items()}
