"""From what an optimizer's groups say, now or step by step, to recipes: what the laws can be evaluated on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.errors import InputError
from theory.optimizers import (
    Adam,
    AdamW,
    Decay,
    Hyperball,
    Lion,
    Muon,
    NormalizedMomentum,
    Optimizer,
)
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Piecewise, Schedule

Array = NDArray[np.float64]
Memory = float | tuple[float, ...] | None

WHOLE = (Muon, NormalizedMomentum, Hyperball)
"""Rules that treat a parameter as one: a slice of a fused matrix does not obey them."""
DIGITS = 12  # rates of two groups that follow one schedule differ in their last bits


class Rates(NamedTuple):
    """What one parameter group was told, step by step."""

    lr: Array
    """Learning rate, shape (T,)."""
    weight_decay: Array
    """Decay coefficient, shape (T,)."""
    memory: Sequence[Memory]
    """Adam's betas, or the momentum; None for optimizers that have neither; length T."""


class Member(NamedTuple):
    """One tensor of a parameter group."""

    name: str
    """Its name."""
    shape: tuple[int, ...]
    """Its shape."""
    norm0: float
    """Its norm when the watch began."""
    invariant: bool
    """Whether it passed the test of scale invariance."""
    is_part: bool
    """Whether it is a slice of a fused parameter."""


@dataclass(frozen=True)
class Track:
    """One parameter group over the steps of a prediction: equal tracks share a recipe, up to rate and decay."""

    law: Optimizer
    """The optimizer at rate 1, its decay 0 (or that of the convention)."""
    peak: float
    """Largest learning rate."""
    decay: float
    """Largest decay coefficient."""
    schedule: Schedule
    """Learning rate over its peak."""
    decay_schedule: Schedule | None = None
    """Decay coefficient over its largest value, if it changes."""
    betas: tuple[tuple[int, tuple[float, float]], ...] | None = None
    """Adam's betas from given steps on, if they change."""

    def shared(self) -> Track:
        """What groups must agree in to be one recipe."""
        return replace(self, peak=1.0, decay=1.0 if self.decay_schedule else 0.0)


def announced(law: Optimizer, schedule: Schedule, *, peak: float, decay: float) -> Track:
    """A group whose learning rate is to follow a schedule, with everything else as it is now.

    Args:
        law: From `law_of`, or the user's own specification.
        schedule: Shape of the learning rate.
        peak: The group's peak rate.
        decay: Its decay coefficient.

    Returns:
        The track.

    Raises:
        InputError: If the rate is zero throughout.
    """
    if peak == 0:
        raise InputError("its learning rate is 0")
    return Track(_bare(law), peak, decay, schedule)


def observed(law: Optimizer, rates: Rates) -> Track:
    """A group with the rates that it had.

    Args:
        law: From `law_of`, or the user's own specification.
        rates: What was read at each step.

    Returns:
        The track.

    Raises:
        InputError: If something changed that the laws hold fixed, or the rate was zero throughout.

    Example:
        >>> from theory.optimizers import SGD
        >>> track = observed(SGD(0.5), Rates(np.array([0.5, 0.25, 0.25]), np.zeros(3), [0.0] * 3))
        >>> track.peak, track.schedule.knots
        (0.5, ((0, 1.0), (1, 0.5)))
    """
    peak, decay = float(rates.lr.max()), float(rates.weight_decay.max())
    if not np.isfinite(peak) or peak <= 0:
        raise InputError("its learning rate was 0" if peak == 0 else f"its learning rate was {peak}")
    decay_schedule = betas = None
    if float(rates.weight_decay.min()) != decay:
        if law.decay is not Decay.DECOUPLED or isinstance(law, Hyperball):
            raise InputError(f"its weight_decay changed, and theory has no law for that under {law.decay.value} decay")
        law, decay_schedule = replace(law, decay=Decay.SCHEDULED), held(rates.weight_decay / decay)
    changes = [0, *(t for t in range(1, len(rates.memory)) if rates.memory[t] != rates.memory[t - 1])]
    first = rates.memory[0]
    if first is None:
        pass  # an unknown class with the user's specification: what it says holds
    elif isinstance(law, (Adam, AdamW)):
        pairs = [(t, _pair(rates.memory[t])) for t in changes]
        law = replace(law, betas=pairs[0][1])
        betas = tuple(pairs) if len(pairs) > 1 else None
    elif len(changes) > 1:
        raise InputError("its momentum changed, and theory has no law for that")
    elif isinstance(law, Lion):
        law = replace(law, betas=_pair(first))
    elif isinstance(first, float):
        law = replace(law, momentum=first)
    return Track(_bare(law), peak, decay, held(rates.lr / peak), decay_schedule, betas)


def recipes(tracks: Sequence[tuple[Track, Sequence[Member]]], steps: int) -> tuple[tuple[Recipe, ...], dict[str, str]]:
    """As few recipes as possible: groups whose rates are multiples of one another share one.

    Args:
        tracks: Each group with its tensors.
        steps: Length of the run, or of what was seen of it.

    Returns:
        The recipes, and by tensor the reason why it is in none.
    """
    shared: dict[Track, list[tuple[Track, Member]]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for track, members in tracks:
        for member in members:
            reason = _unfit(track, member)
            if reason:
                reasons[member.name] = reason
            else:
                shared[track.shared()].append((track, member))
    found = []
    for key, pairs in shared.items():
        peak = max(track.peak for track, _ in pairs)
        decay = max(track.decay for track, _ in pairs)
        law = (
            replace(key.law, lr=peak)
            if isinstance(key.law, Hyperball)
            else replace(key.law, lr=peak, weight_decay=decay)
        )
        groups = tuple(_group(track, member, peak, decay) for track, member in pairs)
        try:
            found.append(Recipe(law, key.schedule, steps, groups, key.decay_schedule, key.betas))
        except InputError as error:
            reasons |= {member.name: str(error).rstrip(".") for _, member in pairs}
    return tuple(found), reasons


def held(multipliers: Array) -> Schedule:
    """A schedule that holds each value until the next.

    Args:
        multipliers: In [0, 1], one a step.

    Returns:
        `Constant` if they are all 1, otherwise `Piecewise`.

    Example:
        >>> held(np.array([1.0, 0.5, 0.5])).knots
        ((0, 1.0), (1, 0.5))
    """
    values = np.minimum(np.round(multipliers, DIGITS), 1.0)
    at = np.flatnonzero(np.diff(values, prepend=np.inf))
    if len(at) == 1 and values[0] == 1:
        return Constant()
    return Piecewise(knots=tuple(zip(at.tolist(), values[at].tolist(), strict=True)))


def _bare(law: Optimizer) -> Optimizer:
    return replace(law, lr=1.0) if isinstance(law, Hyperball) else replace(law, lr=1.0, weight_decay=0.0)


def _pair(memory: Memory) -> tuple[float, float]:
    if not isinstance(memory, tuple) or len(memory) != 2:
        raise InputError("it has no betas")
    return memory[0], memory[1]


def _unfit(track: Track, member: Member) -> str:
    if 0 in member.shape:
        return "it is empty"
    if isinstance(track.law, WHOLE) and member.is_part:
        return f"it is a slice of a parameter that {type(track.law).__name__} treats as a whole"
    if isinstance(track.law, Muon) and len(member.shape) != 2:
        return "Muon's law is for matrices"
    return ""


def _group(track: Track, member: Member, peak: float, decay: float) -> Group:
    return Group(
        name=member.name,
        shape=member.shape,
        # a gain in front of a bias that is still 0 passes the test at initialisation only: matrices alone are trusted
        scale_invariant="tensor" if member.invariant and len(member.shape) >= 2 else None,
        decayed=track.decay > 0,
        norm0=member.norm0,
        lr_factor=track.peak / peak,
        weight_decay=track.decay if track.decay not in (0.0, decay) else None,
    )
