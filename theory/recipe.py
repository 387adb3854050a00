"""The whole input of a prediction: optimizer, schedule, steps and parameter groups, frozen and hashable by content."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.optimizers import Adam, AdamW, Decay, Optimizer
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
    betas_schedule: tuple[tuple[int, tuple[float, float]], ...] | None = None
    """Adam's betas from given steps on, pairs (step, betas), steps increasing from 0; the optimizer's if None."""
    batch_schedule: Schedule | None = None
    """Shape of the batch size, relative to the largest: smaller batches, noisier gradients; `c2` is the largest's."""

    def __post_init__(self) -> None:
        known = ", ".join(kind.__name__ for kind in get_args(Optimizer))
        require(isinstance(self.optimizer, Optimizer), "optimizer", self.optimizer, f"one of {known}")
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
        for name in ("weight_decay_schedule", "batch_schedule"):
            own = getattr(self, name)
            require(own is None or isinstance(own, Constant), name, own, "None or a schedule")
            if own is not None:
                own.check(self.steps)
        if self.batch_schedule is not None:
            sizes = self.batch_schedule.at(np.arange(self.steps), self.steps)
            require(bool(np.all(sizes > 0)), "batch_schedule", float(sizes.min()), "positive at every step")
        if self.betas_schedule is not None:
            settle(self, betas_schedule=self._checked_betas(self.betas_schedule))
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

    def _checked_betas(self, knots: Any) -> tuple[tuple[int, tuple[float, float]], ...]:
        adam = isinstance(self.optimizer, (Adam, AdamW))
        require(adam, "betas_schedule", knots, "None unless the optimizer is Adam or AdamW")
        pairs = tuple(
            (whole("betas_schedule", step), (finite("beta1", b1, high=1.0), finite("beta2", b2, high=1.0)))
            for step, (b1, b2) in knots
        )
        steps = [step for step, _ in pairs]
        fits = bool(pairs) and steps[0] == 0 and steps == sorted(set(steps)) and steps[-1] < self.steps
        require(fits, "betas_schedule", steps[:3], f"pairs (step, betas) with steps from 0 to {self.steps - 1}")
        return pairs

    def betas(self) -> NDArray[np.float64]:
        """Adam's betas at every step.

        Returns:
            Shape (steps, 2).

        Raises:
            InputError: If the optimizer is neither Adam nor AdamW.
        """
        optimizer = self.optimizer
        if not isinstance(optimizer, (Adam, AdamW)):
            raise InputError(f"optimizer = {type(optimizer).__name__} has no betas of this kind: it must be Adam(W).")
        if self.betas_schedule is None:
            return np.tile(optimizer.betas, (self.steps, 1))
        begins = np.array([step for step, _ in self.betas_schedule])
        values = np.array([pair for _, pair in self.betas_schedule])
        return values[np.searchsorted(begins, np.arange(self.steps), side="right") - 1]

    def noise(self) -> NDArray[np.float64]:
        """Second moment of the gradients' noise at every step, relative to that of the largest batch.

        Returns:
            The largest batch over that of the step, shape (steps,).
        """
        if self.batch_schedule is None:
            return np.ones(self.steps)
        sizes = self.batch_schedule.at(np.arange(self.steps), self.steps)
        return sizes.max() / sizes

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
