"""The whole input of a prediction: optimizer, schedule, steps and parameter groups, frozen and hashable by content."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.optimizers import SGD, Adam, AdamW, Decay, Optimizer
from theory.schedules import Constant, Schedule
from theory.serialize import content_hash, from_json, serializable, settle, to_json


@serializable
@dataclass(frozen=True)
class Group:
    """One tensor, or `count` tensors alike, as the laws see it."""

    name: str
    """The tensor's name, as records and tables use it."""
    shape: tuple[int, ...]
    """Shape of one tensor."""
    count: int = 1
    """How many tensors of this kind the group stands for."""
    scale_invariant: Literal["tensor", "row"] | None = None
    """Whether the loss ignores the scale of the tensor, of each row, or neither."""
    decayed: bool = True
    """Whether weight decay acts on it."""
    norm0: float | None = None
    """Frobenius norm at step 0; unknown if None."""
    lr_factor: float = 1.0
    """Its learning rate over the recipe's."""
    weight_decay: float | None = None
    """Its own decay coefficient; the optimizer's if None."""

    def __post_init__(self) -> None:
        require(isinstance(self.name, str) and bool(self.name), "name", self.name, "a non-empty string")
        sized = isinstance(self.shape, Iterable) and not isinstance(self.shape, str)
        require(sized, "shape", self.shape, "a sequence of whole numbers >= 1")
        kinds = ("tensor", "row", None)
        require(self.scale_invariant in kinds, "scale_invariant", self.scale_invariant, "'tensor', 'row' or None")
        settle(
            self,
            shape=tuple(whole("shape", n, low=1) for n in self.shape),
            count=whole("count", self.count, low=1),
            decayed=bool(self.decayed),
            norm0=None if self.norm0 is None else finite("norm0", self.norm0),
            lr_factor=finite("lr_factor", self.lr_factor),
            weight_decay=None if self.weight_decay is None else finite("weight_decay", self.weight_decay),
        )

    @property
    def size(self) -> int:
        """Number of coordinates of one tensor."""
        return math.prod(self.shape)


@serializable
@dataclass(frozen=True)
class Recipe:
    """Everything a prediction needs.

    Example:
        >>> recipe = Recipe(AdamW(lr=6e-4, weight_decay=0.1), Constant(), 1_000, (Group("w", (64, 64)),))
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
    """

    optimizer: Optimizer
    """The optimizer with its peak learning rate."""
    schedule: Schedule = field(default_factory=Constant)
    """Shape of the learning rate."""
    steps: int = 1
    """Number of optimizer steps."""
    groups: tuple[Group, ...] = ()
    """The tensors."""
    weight_decay_schedule: Schedule | None = None
    """Shape of the decay coefficient, for the `scheduled` convention; constant if None."""

    def __post_init__(self) -> None:
        require(isinstance(self.optimizer, (SGD, Adam, AdamW)), "optimizer", self.optimizer, "one of SGD, Adam, AdamW")
        require(isinstance(self.schedule, Constant), "schedule", self.schedule, "a schedule such as Cosine(warmup=100)")
        settle(self, steps=whole("steps", self.steps, low=1), groups=tuple(self.groups))
        require(
            all(isinstance(g, Group) for g in self.groups), "groups", self.groups[:1], "a sequence of Group objects"
        )
        names = [group.name for group in self.groups]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        require(not repeated, "groups", repeated[:3], "named differently, one name a group")
        self.schedule.check(self.steps)
        scheduled = self.optimizer.decay is Decay.SCHEDULED
        require(
            isinstance(self.weight_decay_schedule, Constant) if scheduled else self.weight_decay_schedule is None,
            "weight_decay_schedule",
            self.weight_decay_schedule,
            "a schedule exactly when the optimizer's decay is 'scheduled', else None",
        )
        if self.weight_decay_schedule is not None:
            self.weight_decay_schedule.check(self.steps)
        limit = 2.0 if self.optimizer.decay is Decay.COUPLED else 1.0
        independent = self.optimizer.decay is Decay.INDEPENDENT
        for group in self.groups:
            peak = self.decay_of(group) * (1.0 if independent else self.optimizer.lr * group.lr_factor)
            if peak >= limit:
                what = "weight_decay" if independent else "lr * weight_decay"
                raise InputError(
                    f"{what} = {peak:g} (group {group.name!r}) is not allowed: it must be below {limit:g}, "
                    "or every step overshoots zero."
                )

    def decay_of(self, group: Group) -> float:
        """Decay coefficient that acts on a group (0 if it is not decayed).

        Args:
            group: One of the groups.

        Returns:
            The coefficient, in the optimizer's convention.
        """
        if not group.decayed or self.optimizer.decay is Decay.NONE:
            return 0.0
        return self.optimizer.weight_decay if group.weight_decay is None else group.weight_decay

    def lr(self, step: ArrayLike, group: Group | None = None) -> NDArray[np.float64]:
        """Learning rate at each step.

        Args:
            step: Step index or indices.
            group: The group whose `lr_factor` applies; none if omitted.

        Returns:
            Rates, shaped like `step`.
        """
        factor = 1.0 if group is None else group.lr_factor
        return self.optimizer.lr * factor * self.schedule.at(step, self.steps)

    def shrink(self, step: ArrayLike, group: Group) -> NDArray[np.float64]:
        """Fraction by which a step with zero gradient shrinks the weights, in whatever convention.

        For coupled decay this is lr*weight_decay, the decay's part of one plain SGD step; for cautious decay half of
        lr*weight_decay, because half of the coordinates are decayed on average.

        Args:
            step: Step index or indices.
            group: The group.

        Returns:
            Shrink per step, shaped like `step`.
        """
        shape = self.schedule.at(step, self.steps)
        peak, decay = self.optimizer.lr * group.lr_factor, self.decay_of(group)
        kind = self.optimizer.decay
        if kind is Decay.INDEPENDENT:
            return shape * decay
        if kind is Decay.CORRECTED:
            return shape**2 * peak * decay
        if kind is Decay.CAUTIOUS:
            return 0.5 * shape * peak * decay
        if kind is Decay.SCHEDULED and self.weight_decay_schedule is not None:
            return shape * peak * decay * self.weight_decay_schedule.at(step, self.steps)
        return shape * peak * decay

    @property
    def hash(self) -> str:
        """SHA-256 of the contents."""
        return content_hash(self)

    def to_json(self, *, indent: int | None = None) -> str:
        """The recipe as JSON text.

        Args:
            indent: As in `json.dumps`.

        Returns:
            JSON text that `from_json` reads.
        """
        return to_json(self, indent=indent)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe from JSON text.

        Args:
            text: What `to_json` wrote.

        Returns:
            The recipe.

        Raises:
            InputError: If the text does not describe a recipe.
        """
        recipe = from_json(text)
        require(isinstance(recipe, Recipe), "recipe", type(recipe).__name__, "a Recipe")
        return recipe
