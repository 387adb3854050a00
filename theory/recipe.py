"""The whole input of a prediction: optimizer, schedule, steps and parameter groups, frozen and hashable by content."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.optimizers import SGD, Adam, AdamW, Decay, Optimizer
from theory.schedules import Constant, Schedule
from theory.serialize import content_hash, from_json, serializable, to_json


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
        require(bool(self.name), "name", self.name, "a non-empty string")
        object.__setattr__(self, "shape", tuple(whole("shape", n, low=1) for n in self.shape))
        whole("count", self.count, low=1)
        kinds = ("tensor", "row", None)
        require(self.scale_invariant in kinds, "scale_invariant", self.scale_invariant, "'tensor', 'row' or None")
        if self.norm0 is not None:
            finite("norm0", self.norm0)
        finite("lr_factor", self.lr_factor)
        if self.weight_decay is not None:
            finite("weight_decay", self.weight_decay)

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
        whole("steps", self.steps, low=1)
        object.__setattr__(self, "groups", tuple(self.groups))
        names = [group.name for group in self.groups]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        require(not repeated, "groups", repeated[:3], "named differently, one name a group")
        self.schedule.check(self.steps)
        scheduled = self.optimizer.decay is Decay.SCHEDULED
        require(
            scheduled == (self.weight_decay_schedule is not None),
            "weight_decay_schedule",
            self.weight_decay_schedule,
            "given exactly when the optimizer's decay is 'scheduled'",
        )
        if self.weight_decay_schedule is not None:
            self.weight_decay_schedule.check(self.steps)
        coupled = self.optimizer.decay is Decay.COUPLED
        for group in self.groups:
            peak = self.optimizer.lr * group.lr_factor * self.decay_of(group)
            limit = 2.0 if coupled else 1.0
            if self.optimizer.decay is not Decay.INDEPENDENT and peak >= limit:
                raise InputError(
                    f"lr * weight_decay = {peak:g} (group {group.name!r}) is not allowed: it must be below {limit:g}, "
                    "or every step overshoots zero."
                )

    def decay_of(self, group: Group) -> float:
        """Decay coefficient that acts on a group (0 if it is not decayed).

        Args:
            group: One of the groups.

        Returns:
            The coefficient, in the optimizer's convention.
        """
        if not group.decayed:
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

        For coupled decay this is lr*weight_decay, the decay's part of one plain SGD step.

        Args:
            step: Step index or indices.
            group: The group.

        Returns:
            Shrink per step, shaped like `step`.
        """
        shape = self.schedule.at(step, self.steps)
        peak, decay = self.optimizer.lr * group.lr_factor, self.decay_of(group)
        kind = self.optimizer.decay
        if kind is Decay.NONE:
            return np.zeros_like(shape)
        if kind is Decay.INDEPENDENT:
            return shape * decay
        if kind is Decay.CORRECTED:
            return shape**2 * peak * decay
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
