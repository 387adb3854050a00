# pyright: reportIncompatibleVariableOverride=false
"""Two optimizers that step as one, and decay that acts on some coordinates only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from empirics.scale_free import overflowed


class Joint(Optimizer):
    """Several optimizers, each with parameters of its own, that look like one: groups, state, hooks, checkpoints.

    Args:
        parts: The optimizers; their groups become this one's, in order, and stay theirs.

    Example:
        >>> a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
        >>> both = Joint([torch.optim.SGD([a], lr=0.5), torch.optim.SGD([b], lr=0.25)])
        >>> a.grad = b.grad = torch.ones(1)
        >>> both.step(); (a.item(), b.item())
        (0.5, 0.75)
    """

    _step_supports_amp_scaling = True

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @property
    def state(self) -> dict[Any, Any]:
        """The parts' states together."""
        merged: defaultdict[Any, Any] = defaultdict(dict)
        for part in self.parts:
            merged.update(part.state)
        return merged

    @state.setter
    def state(self, value: Any) -> None:
        """The parts have it."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each part; none where a scaled gradient has overflowed.

        Args:
            closure: Evaluates the loss again, as in torch.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not overflowed(self):
            for part in self.parts:
                part.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        groups = iter(state["param_groups"])
        for part in self.parts:
            mine = [next(groups) for _ in part.param_groups]
            held = {p for group in mine for p in group["params"]}
            own = defaultdict(dict, {p: value for p, value in state["state"].items() if p in held})
            part.__setstate__({"state": own, "param_groups": mine})
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class Cautious:
    """Cautious decay: w <- w - lr*u - lr*weight_decay*w only where u*w >= 0, and w - lr*u elsewhere.

    Two hooks around the step of any optimizer whose decay is decoupled: the step itself is taken without decay, in the
    groups that have `cautious` set.

    Source: Chen et al., arXiv 2510.12402.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._held: list[tuple[dict[str, Any], float, list[tuple[Tensor, Tensor]]]] = []
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        self._held = []
        for group in optimizer.param_groups:
            if group.get("cautious") and group["weight_decay"]:
                pairs = [(p, p.detach().clone()) for p in group["params"] if p.grad is not None]
                self._held.append((group, group["weight_decay"], pairs))
                group["weight_decay"] = 0.0

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        skipped = overflowed(optimizer)
        for group, decay, pairs in self._held:
            group["weight_decay"] = decay
            for p, old in pairs if not skipped else ():
                agrees = (p - old) * old <= 0
                p.sub_(old * agrees, alpha=group["lr"] * decay)
        self._held = []
