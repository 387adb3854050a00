# pyright: reportPrivateImportUsage=false
"""Averages of the weights along a run: exponential ones, and the plain mean from some step on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.sharded import like
from theory.errors import require

ALLOWED = "such as ema:100 (half-life in steps) or swa:500 (mean of the weights after step 500 and all later ones)"


def spelled(given: str | Sequence[str], steps: int) -> tuple[str, ...]:
    """Check which averages are kept, and spell each in one way.

    Args:
        given: ema:<half-life in steps, positive> or swa:<first step>, one or several.
        steps: Length of the run.

    Returns:
        The same, without repetitions, in order.

    Raises:
        InputError: If one is neither, or begins after the end.

    Example:
        >>> spelled("ema:50.0", steps=100)
        ('ema:50',)
    """
    each = (given,) if isinstance(given, str) else tuple(given)
    found: dict[str, None] = {}
    for text in each:
        match = re.fullmatch(r"ema:(\d+(?:\.\d+)?)|swa:(\d+)", text) if isinstance(text, str) else None
        require(match is not None, "averages", text, ALLOWED)
        assert match is not None
        if match[1]:
            require(float(match[1]) > 0, "averages", text, ALLOWED)
            found[f"ema:{float(match[1]):g}"] = None
        else:
            require(int(match[2]) < steps, "averages", text, f"of a first step below steps = {steps}")
            found[f"swa:{int(match[2])}"] = None
    return tuple(found)


class Averages:
    """Averaged weights of a model, updated by a hook after every step of its optimizer.

    ema:h is m <- 2^(-1/h) m + (1 - 2^(-1/h)) w after each step, from m = the weights before the first. swa:s is the
    mean of the weights after steps s, s+1, ... (Izmailov et al., arXiv 1803.05407). Frozen weights are left out.

    Args:
        names: From `spelled`.
        model: The model.
        optimizer: Its optimizer.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> averages = Averages(("ema:1", "swa:1"), model, optimizer)
        >>> for _ in range(3):
        ...     model.weight.grad = -torch.ones(1, 1)
        ...     optimizer.step()  # 1, 2, 3
        >>> for name in averages.ready():
        ...     with averages.applied(name):
        ...         print(name, model.weight.item())
        ema:1 2.125
        swa:1 2.5
    """

    def __init__(self, names: Sequence[str], model: nn.Module, optimizer: Optimizer) -> None:
        self.names, self.step = tuple(names), 0
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._means = {name: [p.detach().clone() for p in self._weights] for name in self.names}
        if self.names:
            optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        for name, means in self._means.items():
            kind, text = name.split(":")
            if kind == "swa" and self.step < int(text):
                continue
            share = 1 - 2 ** (-1 / float(text)) if kind == "ema" else 1 / (self.step - int(text) + 1)
            torch._foreach_lerp_(means, [p.detach() for p in self._weights], share)
        self.step += 1

    def ready(self) -> list[str]:
        """The averages that have begun."""
        return [name for name in self.names if name.startswith("ema") or self.step > int(name.partition(":")[2])]

    @contextmanager
    def applied(self, name: str) -> Iterator[None]:
        """The model has the average's weights in the context, and afterwards its own again, bit by bit.

        Args:
            name: The average.
        """
        own = [p.detach().clone() for p in self._weights]
        self._copy(self._means[name])
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for p, value in zip(self._weights, values, strict=True):
            p.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: steps seen, and the averages."""
        return {"step": self.step, "means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Args:
            state: That of the same run.
        """
        self.step = state["step"]
        for name, means in state["means"].items():
            for mean, value in zip(self._means[name], means, strict=True):
                mean.copy_(like(value, mean))
