"""Learning rates that follow another run: its recorded effective rates, or those of its exact twin without decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.config import TrainConfig
from empirics.probes.invariance import invariance
from empirics.probes.twin import LossFn
from empirics.records import Record
from empirics.tensors import TensorView, tensors
from theory.equivalence.twin import equivalent_schedule
from theory.errors import InputError, require
from theory.optimizers import SGD, Muon
from theory.recipe import Recipe

Array = NDArray[np.float64]


class Rates(Protocol):
    """What sets learning rates besides the schedule."""

    def set(self, step: int) -> None:
        """Called before a step, after the schedule's own rates are set."""
        ...


def matrices(model: nn.Module) -> tuple[TensorView, ...]:
    """The trainable tensors with two or more dimensions, queries, keys and values apart."""
    return tuple(view for view in tensors(model) if len(view.shape) >= 2)


class Matched:
    """Follow the effective learning rates that another run recorded, tensor by tensor or by one factor.

    Effective rates are lr/|w|^2 for SGD and lr sqrt(size)/|w| for the others (`empirics.probes.rotation`), so that the
    learning rate of a step is the recorded one times the present |w|^2 or |w|/sqrt(size). Between recorded steps rates
    are joined by straight lines. Tensors with fewer than two dimensions keep the schedule's rate. Queries, keys and
    values in one parameter share a group: its rate is their geometric mean, and their updates are scaled after the
    step. Reading |w| waits for the device.

    Args:
        record: The run that is followed.
        config: This run.
        model: Its model.
        optimizer: Its optimizer, each matrix in a group of its own.

    Raises:
        InputError: If the run did not record what is needed.
    """

    def __init__(self, record: Record, config: TrainConfig, model: nn.Module, optimizer: Optimizer) -> None:
        self.config, self.views = config, matrices(model)
        table = record.pivot("effective_lr")
        names = [view.name for view in self.views]
        missing = [name for name in names if name not in table.columns]
        if missing:
            raise InputError(f"match = {config.match!r} is not allowed: it has no effective_lr of {missing[0]!r}.")
        steps, known = np.arange(config.steps), table.index.to_numpy(dtype=np.float64)
        sgd = isinstance(record.config.optimizer, SGD)
        require(sgd == isinstance(config.optimizer, SGD), "match", config.match, "a run of SGD exactly if this one is")
        columns = [np.interp(steps, known, table[name].to_numpy(dtype=np.float64)) for name in names]
        self.rates: Array = np.stack(columns, axis=1) * config.match_factor
        if config.match_by == "mean":
            self.rates[:] = self.rates.mean(axis=0)
        self._sgd = sgd
        self._root = np.sqrt([view.view().numel() for view in self.views])
        self.optimizer = optimizer
        where = {p: i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        parts: dict[nn.Parameter, list[int]] = {}
        for i, view in enumerate(self.views):
            parts.setdefault(view.parameter, []).append(i)
        self._groups = [(where[p], parts[p]) for p in parts]
        self._shared = [(p, chosen) for p, chosen in parts.items() if len(chosen) > 1]
        self._ratios: dict[int, float] = {}
        self._before: list[Tensor] = []
        if self._shared and config.match_by != "global":
            optimizer.register_step_pre_hook(self._hold)
            optimizer.register_step_post_hook(self._scale)

    def set(self, step: int) -> None:
        """Set the rates of the matrices for a step.

        Args:
            step: The step.
        """
        norms = torch.stack([torch.linalg.vector_norm(view.view()) for view in self.views]).double().cpu().numpy()
        wanted = self.rates[step] * (norms**2 if self._sgd else norms / self._root)
        groups = [(self.optimizer.param_groups[i], chosen) for i, chosen in self._groups]
        if self.config.match_by == "global":
            plain = np.array([group["lr"] for group, chosen in groups for _ in chosen])
            wanted = plain * geometric_mean(wanted / plain) if plain.all() else plain
        for group, chosen in groups:
            group["lr"] = rate = geometric_mean(wanted[chosen])
            self._ratios |= {i: float(wanted[i]) / rate if rate else 1.0 for i in chosen}

    def _hold(self, *args: Any) -> None:
        self._before = [p.detach().clone() for p, _ in self._shared]

    @torch.no_grad()
    def _scale(self, *args: Any) -> None:
        for (_p, chosen), before in zip(self._shared, self._before, strict=True):
            for i in chosen:
                old, new = self.views[i].of(before), self.views[i].view()
                new.copy_(torch.lerp(old, new, self._ratios[i]))
        self._before = []


def geometric_mean(values: Array | Sequence[float]) -> float:
    """Exp of the mean logarithm; 0 if one is 0.

    Example:
        >>> round(geometric_mean([1.0, 4.0]), 12)
        2.0
    """
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(values))))


class Twin:
    """Train the twin of a decayed run: its matrices without decay, on the rates of `theory.equivalent_schedule`.

    Exact for scale-invariant tensors, in exact arithmetic: equal directions and losses, weights 1/norm_ratio times
    larger. Everything else is trained as the decayed run trains it, decay included. Clipping sees the twin's smaller
    gradients: where it acts the runs part.

    Args:
        record: The decayed run.
        config: This run, with the decayed run's optimizer and schedule.
        model: Its model, with its first weights.
        optimizer: Its optimizer, each matrix in a group of its own.
        loss: Loss of (model, batch), for the test of scale invariance.
        batch: A batch for it.

    Raises:
        InputError: If the runs differ in optimizer, schedule or length, the optimizer has no twin, or no decayed
            matrix is scale-invariant.
    """

    def __init__(
        self, record: Record, config: TrainConfig, model: nn.Module, optimizer: Optimizer, loss: LossFn, batch: Any
    ) -> None:
        other: TrainConfig = record.config
        for name in ("model", "optimizer", "schedule", "weight_decay_schedule", "steps", "decay"):
            own, its = getattr(config, name), getattr(other, name)
            require(own == its, name, own, f"that of the run whose twin this is, {its!r}")
        recipe = Recipe(
            config.optimizer, config.schedule, config.steps, weight_decay_schedule=config.weight_decay_schedule
        )
        self.run, self._muon = equivalent_schedule(recipe), isinstance(config.optimizer, Muon)
        views = matrices(model)
        chosen = {view.parameter for view in views}
        if config.twin_of == "invariant":
            defects = invariance(model, loss, batch, views)
            chosen -= {view.parameter for view in views if not defects[view.name].is_invariant}
        self.optimizer = optimizer
        groups = enumerate(optimizer.param_groups)  # by number: a checkpoint that is loaded makes them anew
        self.groups = [i for i, group in groups if group["decayed"] and chosen.issuperset(group["params"])]
        if not self.groups:
            raise InputError(
                f"twin = {config.twin!r} is not allowed: no decayed matrix of the model is scale-invariant."
            )

    def set(self, step: int) -> None:
        """Set rates, betas and eps of the twin's tensors for a step, without decay.

        Args:
            step: The step.
        """
        for group in (self.optimizer.param_groups[i] for i in self.groups):
            group["lr"], group["weight_decay"] = float(self.run.lr[step]), 0.0
            if self.run.betas is not None:
                first, second = map(float, self.run.betas[step])
                group.update({"betas": (first, second)} if "betas" in group else {"momentum": second})
            if self.run.eps is not None:
                group["eps"] = float(self.run.eps[step])


def apart(config: TrainConfig, model: nn.Module) -> frozenset[str]:
    """Names of the parameters that need groups of their own, for `build_optimizer`.

    Args:
        config: The run.
        model: Its model.

    Returns:
        The names of the matrices where learning rates come from another run, else none.
    """
    follows = config.match or config.twin
    return frozenset(view.parameter_name for view in matrices(model)) if follows else frozenset()
