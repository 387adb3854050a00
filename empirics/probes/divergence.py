"""Is a run diverging? Values that are not finite, spikes of the loss, late drift; and how the network looks then."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.probes.products import is_sharded
from empirics.tensors import tensors
from theory.errors import finite, whole

Kind = Literal["not finite", "spike", "drift"]

SIGMA = 1.4826  # standard deviation of a Gaussian over its median absolute deviation
MEDIAN = 1.2533  # standard error of a Gaussian's median over that of its mean, sqrt(pi/2)
RESOLUTION = 1e-3
"""Smallest scatter that is believed, relative to the loss: a loss that stands still has none of its own."""


@dataclass(frozen=True)
class Trigger:
    """Why a run is thought to diverge."""

    step: int
    """The step."""
    kind: Kind
    """not finite: loss or gradient norm is nan or inf, nothing comes back from there. spike: one loss far above those
    before it; runs may recover. drift: the loss has been rising for two windows."""
    quantity: str
    """loss or grad_norm."""
    value: float
    """Its value."""
    score: float
    """Robust z-score; inf if not finite."""

    def __str__(self) -> str:
        what = {
            "not finite": f"{self.quantity} is {self.value}",
            "spike": f"loss {self.value:.4g} is {self.score:.1f} robust standard deviations above the window's median",
            "drift": f"median loss {self.value:.4g} is {self.score:.1f} standard errors above the best window's",
        }
        return f"step {self.step}: {what[self.kind]}"


class Divergence:
    """Watch the loss, step by step; plain floats in, so that nothing waits for the device but the caller's flush.

    - not finite: loss or gradient norm is nan or inf.
    - spike: (loss - median) / sigma >= threshold over the last `window` finite losses, sigma = 1.4826 median absolute
      deviations and at least 0.1 % of the median. Needs half a window. One trigger a spike: the next only after the
      score was below half the threshold.
    - drift: windows of `window` losses, one after the other; the median of each of two in a row exceeds the lowest so
      far by `threshold` of their joint standard errors (sigma*sqrt(pi/2)/sqrt(window) each) and by 1 %. One trigger a
      drift, again after a window without.

    The scatter is that of the losses themselves, so a steep descent widens it: early in training the test is blunt, not
    trigger-happy. For Gaussian losses a false spike at 10 sigma takes 1e23 steps; heavier tails are the reason for a
    threshold so high. Holds `window` numbers. Touches no model.

    Args:
        window: Number of losses.
        threshold: Robust standard deviations (spike), standard errors (drift).

    Raises:
        InputError: If window is not a whole number >= 8, or threshold not a number >= 1.

    Example:
        >>> watch = Divergence(window=8)
        >>> found = [watch.observe(step, 2.0 + 0.01 * (step % 3)) for step in range(20)]
        >>> str(watch.observe(20, 3.0))
        "step 20: loss 3 is 66.8 robust standard deviations above the window's median"
        >>> watch.observe(21, float("nan")).kind
        'not finite'
    """

    def __init__(self, *, window: int = 100, threshold: float = 10.0) -> None:
        self.window, self.threshold = whole("window", window, low=8), finite("threshold", threshold, low=1.0)
        self._recent: deque[float] = deque(maxlen=self.window)
        self._block: list[float] = []
        self._best: tuple[float, float] | None = None  # median and its standard error, of the best window so far
        self._spiking, self._high = False, 0

    def observe(self, step: int, loss: float, grad_norm: float = 0.0) -> Trigger | None:
        """Take in one step.

        Args:
            step: Its number.
            loss: The training loss (nats), before the step.
            grad_norm: Total norm of the gradient, if known.

        Returns:
            The gravest thing that began at this step, or None.
        """
        for quantity, value in (("loss", loss), ("grad_norm", grad_norm)):
            if not math.isfinite(value):
                return Trigger(step, "not finite", quantity, value, math.inf)
        spike = self._spike(step, loss)
        drift = self._drift(step, loss)
        return spike or drift

    def _spike(self, step: int, loss: float) -> Trigger | None:
        before = np.array(self._recent)
        self._recent.append(loss)
        if len(before) < self.window // 2:
            return None
        center, sigma = robust(before)
        score = (loss - center) / sigma
        was, self._spiking = self._spiking, score >= self.threshold * (0.5 if self._spiking else 1.0)
        return Trigger(step, "spike", "loss", loss, score) if self._spiking and not was else None

    def _drift(self, step: int, loss: float) -> Trigger | None:
        self._block.append(loss)
        if len(self._block) < self.window:
            return None
        center, sigma = robust(np.array(self._block))
        error = MEDIAN * sigma / math.sqrt(self.window)
        self._block.clear()
        if self._best is None or center < self._best[0]:
            self._best = center, error
        score = (center - self._best[0]) / math.hypot(error, self._best[1])
        rise = center - self._best[0]
        high = score >= self.threshold and rise > 0.01 * abs(self._best[0])
        self._high = self._high + 1 if high else 0
        return Trigger(step, "drift", "loss", center, score) if self._high == 2 else None


def robust(values: np.ndarray) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation tells.

    Args:
        values: At least one number.

    Returns:
        Both; the latter at least 0.1 % of the former's size, and never 0.
    """
    center = float(np.median(values))
    sigma = SIGMA * float(np.median(np.abs(values - center)))
    return center, max(sigma, RESOLUTION * abs(center), np.finfo(float).tiny)


@torch.no_grad()
def snapshot(
    model: nn.Module, optimizer: Optimizer | None = None
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """How every tensor looks now: the per-tensor state of divergence.json; waits for the device.

    Reads only; of sharded tensors, in all processes. Pair it with `empirics.checkpoint.save` where the state itself is
    to be kept.

    Args:
        model: Its trainable tensors.
        optimizer: Its state too (momenta, second moments).

    Returns:
        {tensor: {"weight" | "grad" | name of a state: {"norm", "largest", "not_finite"}}}: norm and largest magnitude
        of the finite elements, and how many are not finite.

    Example:
        >>> snapshot(nn.Linear(1, 1, bias=False).requires_grad_())["weight"]["weight"]["not_finite"]
        0
    """
    table = {}
    for view in tensors(model):
        parts: dict[str, Tensor] = {"weight": view.view()}
        if view.parameter.grad is not None:
            parts["grad"] = view.of(view.parameter.grad)
        state: dict[str, Any] = optimizer.state.get(view.parameter, {}) if optimizer is not None else {}
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == view.parameter.shape:
                parts[name] = view.of(value)
        table[view.name] = {name: summary(part) for name, part in parts.items()}
    return table


def summary(tensor: Tensor) -> dict[str, float | int | None]:
    """Norm and largest magnitude of a tensor's finite elements, and how many are not finite."""
    dense: Any = tensor.to_dense() if tensor.is_sparse else tensor
    dense = dense.full_tensor() if is_sharded(dense) else dense
    usable = dense[torch.isfinite(dense)].double()
    largest = usable.abs().max().item() if usable.numel() else None
    return {"norm": usable.norm().item(), "largest": largest, "not_finite": dense.numel() - usable.numel()}
