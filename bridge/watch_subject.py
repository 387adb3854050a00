"""The live model and optimizer under a watch: what they are, which laws they have, and how they change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bridge.describe import LossFunction
from bridge.law_of import law_of
from bridge.watch_forecast import Forecast, forecast
from bridge.watch_meter import Meter
from bridge.watch_rates import RateLog
from bridge.watch_recipe import Member, Track, announced, held, observed
from bridge.watch_schedule import rates_ahead
from empirics.probes.invariance import invariance
from empirics.probes.products import is_sharded, norms
from empirics.tensors import tensors
from theory.errors import InputError, require, whole
from theory.optimizers import Optimizer
from theory.schedules import Constant

Array = NDArray[np.float64]

TOLERANCE = 1e-3
"""A rate departs from the announced one if it differs by more than this fraction of the peak."""


class Subject:
    """What is watched, as it was when the watch began; reads, never writes.

    Args:
        model: The model, bare or wrapped.
        optimizer: Its optimizer, bare or wrapped.
        schedule: As in `watch`.
        total_steps: As in `watch`.
        start: As in `watch`.
        spec: As in `watch`.
        loss_fn: As in `watch`.
        batch: As in `watch`.

    Raises:
        InputError: If the optimizer holds none of the model's trainable parameters, or an argument is not allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        schedule: Any = None,
        total_steps: int | None = None,
        start: int = 0,
        spec: Optimizer | None = None,
        loss_fn: LossFunction | None = None,
        batch: Any = None,
    ) -> None:
        self.model, self.optimizer = bare_model(model), bare_optimizer(optimizer)
        self.start, self.spec, self.schedule = whole("start", start), spec, schedule
        self.total_steps = None if total_steps is None else whole("total_steps", total_steps, low=self.start + 1)
        known = schedule is None or isinstance(schedule, Constant) or hasattr(schedule, "step")
        require(known, "schedule", schedule, "a shape such as dl.Cosine(warmup=100), or a torch scheduler")
        require(spec is None or isinstance(spec, Optimizer), "spec", spec, "an optimizer such as dl.AdamW(lr=1e-3)")
        if schedule is not None and total_steps is None:
            raise InputError("total_steps is missing: a schedule is known only together with the length of the run.")
        if isinstance(schedule, Constant) and self.total_steps is not None:
            schedule.check(self.total_steps)
        self.where = {id(p): i for i, group in enumerate(self.optimizer.param_groups) for p in group["params"]}
        self.views = tuple(view for view in tensors(self.model) if id(view.parameter) in self.where)
        if not self.views:
            raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's own.")
        self.held = frozenset(self.where)
        self.device = self.views[0].parameter.device
        self.parameters = sum(view.view().numel() for view in self.views)
        rank = (
            torch.distributed.get_rank()
            if torch.distributed.is_available() and torch.distributed.is_initialized()
            else 0
        )
        self.writes = rank == 0
        self.sharded = any(is_sharded(view.parameter) for view in self.views)
        self.measures = self.writes or self.sharded  # norms of shards are collective
        self.loss_fn, self.batch = loss_fn, batch
        self.foreign: dict[str, str] = {}
        self.members: dict[int, list[Member]] = {}
        self.laws: dict[int, Optimizer] = {}
        self.reasons: dict[str, str] = {}
        self.tracks: dict[int, Track] = {}
        if self.measures:
            self._describe()

    def _describe(self) -> None:
        defects = {}
        if self.loss_fn is not None:
            defects = invariance(self.model, self.loss_fn, self.batch, self.views)
        sizes = norms([view.view() for view in self.views]).tolist()
        for view, norm in zip(self.views, sizes, strict=True):
            invariant = view.name in defects and defects[view.name].is_invariant
            member = Member(view.name, view.shape, norm, invariant, view.dim is not None)
            self.members.setdefault(self.where[id(view.parameter)], []).append(member)
        for i, members in self.members.items():
            try:
                self.laws[i] = self.spec or law_of(self.optimizer, self.optimizer.param_groups[i])
            except InputError as error:
                self.reasons |= {member.name: str(error).rstrip(".") for member in members}

    def summary(self) -> dict[str, Any]:
        """What the run directory's configuration says of it."""
        return {
            "model": type(self.model).__name__,
            "optimizer": type(self.optimizer).__name__,
            "total_steps": self.total_steps,
            "start": self.start,
        }

    def name_of(self, parameter: int) -> str:
        """Name of a parameter, from its id."""
        names = (name for name, p in self.model.named_parameters() if id(p) == parameter)
        return f"parameter {next(names, '?')!r}"

    def ahead(self) -> tuple[Forecast | None, list[str]]:
        """Predict the whole run from what was announced.

        Returns:
            The forecast, None if too little was announced or nothing can be predicted, and notes that say so.
        """
        notes = [f"{reason}: measured, not predicted." for reason in sorted(set(self.reasons.values()))]
        used = any(s.get("step", 0) > 0 or s.get("momentum_buffer") is not None for s in self.optimizer.state.values())
        if used and self.start == 0:
            notes.append("The optimizer has made steps before: they are counted from here.")
        if self.total_steps is None:
            return None, notes
        groups = self.optimizer.param_groups
        if self.schedule is None and any("initial_lr" in group for group in groups):
            said = "A scheduler is attached to the optimizer: pass it as schedule to be predicted ahead"
            return None, [*notes, f"{said}; until then the laws are evaluated on the rates as they are seen."]
        if self.schedule is None:
            notes.append("No schedule was given: the prediction ahead takes the learning rate to be constant.")
        try:
            tracks, reasons = self._announced(self.total_steps - self.start)
        except InputError as error:
            return None, [*notes, str(error)]
        self.tracks = tracks
        pairs = [(track, self.members[i]) for i, track in tracks.items()]
        found = forecast(pairs, self.total_steps - self.start, start=self.start, reasons=reasons)
        if len(found.predictions) > 1:
            notes.append(f"The groups follow {len(found.predictions)} recipes; recipe.json holds the first.")
        return (found if found.predictions else None), notes

    def _announced(self, steps: int) -> tuple[dict[int, Track], dict[str, str]]:
        total, reasons = self.start + steps, dict(self.reasons)
        shape = self.schedule or Constant()
        rates = None
        if not isinstance(shape, Constant):
            rates = rates_ahead(shape, self.optimizer, steps)
        elif self.start:
            shape = held(shape.at(np.arange(self.start, total), total))
        tracks: dict[int, Track] = {}
        for i, law in self.laws.items():
            group = self.optimizer.param_groups[i]
            decay = self._decay(i, np.array([float(group.get("weight_decay", 0.0))]))[0]
            own, peak = shape, float(group.get("initial_lr", group["lr"]))
            try:
                if rates is not None:
                    peak = float(rates[:, i].max())
                    own = held(rates[:, i] / peak) if peak > 0 else Constant()
                tracks[i] = announced(law, own, peak=peak, decay=decay)
            except InputError as error:
                reasons |= {member.name: str(error).rstrip(".") for member in self.members[i]}
        return tracks, reasons

    def seen(self, rates: RateLog) -> Forecast:
        """The laws on the rates as they were.

        Args:
            rates: What was read at every step.

        Returns:
            The forecast over the steps so far.
        """
        rates.fetch()
        pairs, reasons = [], dict(self.reasons)
        for i, law in self.laws.items():
            try:
                if rates.steps == 0:
                    raise InputError("no step was made yet")
                told = rates.of(i)
                told = told._replace(weight_decay=self._decay(i, told.weight_decay))
                pairs.append((observed(law, told), self.members[i]))
            except InputError as error:
                reasons |= {member.name: str(error).rstrip(".") for member in self.members[i]}
        return forecast(pairs, rates.steps, start=self.start, reasons=reasons)

    def _decay(self, group: int, told: Array) -> Array:
        """Decay coefficient in the law's convention: the user's specification knows better than the group."""
        if self.spec is None:
            return told
        off = self.optimizer.param_groups[group].get("weight_decay") == 0
        return np.full_like(told, 0.0 if off else self.spec.weight_decay)

    def departure(self, rates: RateLog) -> str:
        """Where the rates left what was announced, as a sentence; "" if they did not."""
        rates.fetch()
        steps = rates.steps
        if self.total_steps is None or not steps:
            return ""
        total = self.total_steps - self.start
        if steps > total:
            return f"The run is longer than the announced {self.total_steps} steps."
        for i, track in self.tracks.items():
            told = rates.of(i)
            told = told._replace(weight_decay=self._decay(i, told.weight_decay))
            expected = {
                "learning rate": track.peak * track.schedule.at(np.arange(steps), total),
                "weight decay": np.full(steps, track.decay),
            }
            for what, value in zip(expected, (told.lr, told.weight_decay), strict=True):
                scale = track.peak if what == "learning rate" else track.decay
                off = np.flatnonzero(np.abs(value - expected[what]) > TOLERANCE * scale)
                if len(off):
                    t = int(off[0])
                    return (
                        f"From step {self.start + t} on the {what} of group {i} was not as announced "
                        f"({value[t]:.4g}, not {expected[what][t]:.4g}): the laws are evaluated on the rates as they "
                        "were."
                    )
        return ""

    def changes(self, meter: Meter, rates: RateLog) -> Iterator[str]:
        """Sentences about tensors that came or went."""
        for kind, calls in (("joined", meter.came), ("was frozen or left the optimizer", meter.went)):
            for name, call in calls.items():
                at = self.start + (rates.step_of(call) or 0)
                known = {member.name for members in self.members.values() for member in members}
                if kind == "joined" and name not in known:
                    self.reasons[name] = f"it joined at step {at}"
                yield f"{name} {kind} at step {at}: " + (
                    "measured, not predicted." if name not in known else "what is predicted for it assumes every step."
                )

    def shared_with(self, other: torch.optim.Optimizer) -> list[str]:
        """Sentences about parameters that another optimizer moves as well."""
        common = {id(p) for group in other.param_groups for p in group["params"]} & self.held
        for view in self.views:
            if id(view.parameter) in common:
                self.foreign[view.name] = f"{type(other).__name__} moves it, too"
        if not common:
            return []
        first = self.name_of(next(iter(common)))
        return [
            f"{len(common)} parameters, {first} among them, are also moved by another optimizer "
            f"({type(other).__name__}): what is predicted for them does not apply."
        ]


def bare_model(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's and DistributedDataParallel's wrappers, so that names are its own.

    Args:
        model: Any module.

    Returns:
        The innermost.

    Raises:
        InputError: If it is no module.
    """
    require(isinstance(model, nn.Module), "model", type(model).__name__, "a torch.nn.Module")
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        if hasattr(model, "_orig_mod") and isinstance(model._orig_mod, nn.Module):
            model = model._orig_mod
        elif isinstance(model, wrappers):
            model = model.module
        else:
            return model


def bare_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer that steps, inside wrappers such as Accelerate's.

    Args:
        optimizer: A torch optimizer, or a wrapper that holds one as `optimizer`.

    Returns:
        The innermost.

    Raises:
        InputError: If there is none, or more than one.
    """
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), torch.optim.Optimizer):
        inner = inner.optimizer
    allowed = "one torch.optim.Optimizer; with several, one watch each"
    require(isinstance(inner, torch.optim.Optimizer), "optimizer", type(optimizer).__name__, allowed)
    return inner
