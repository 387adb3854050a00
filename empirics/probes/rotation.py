"""Norms, angles and effective learning rates of every tensor, measured around the optimizer's own step.

Before a measured step the weights are copied; after it three norms a tensor, r = |w|, r' = |w'| and D = |w' - w|,
accumulated in float64, hold everything else. The angle is that of the chord between the unit vectors,

    |u - u'|^2 = (D^2 - (r' - r)^2) / (r r'),      angle = 2 atan2(|u - u'|, |u + u'|),

which has no small difference of large numbers: D comes from the difference vector itself. Results stay on the device
until `flush`, so that a measured step does not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from empirics.tensors import tensors
from theory.errors import InputError, whole

Array = NDArray[np.float64]
Measurement = tuple[int, dict[str, dict[str, float]]]
Rates = tuple[float | Tensor, float | Tensor, bool]

DECOUPLED = (torch.optim.AdamW, torch.optim.Muon)  # others say so in their groups, if they have the choice


class Rotation:
    """Watch an optimizer: two hooks, removable, that change nothing about the training.

    Per tensor, at measured step t, from the weights w before and w' after it: `norm` |w'|, `angle` between w and w' (rad),
    `relative_update` |w' - a w|/|w| with a = 1 - lr*weight_decay under decoupled decay and 1 under coupled decay,
    `effective_lr` (lr/|w|^2 for SGD, lr*sqrt(size)/|w| for the others) and `grad_norm` (as the optimizer sees the
    gradient: after clipping). Besides, `lr` of the first parameter group, and `norm0`, the norm before step 0.
    Tensors without a gradient at a step are left out of it.

    Args:
        model: The model whose tensors are measured.
        optimizer: Its optimizer; tensors that are not in it are left out.
        every: Measure steps 0, every, 2*every, ...
        start: Number of the next step (that of the checkpoint when resuming).

    Raises:
        InputError: If the optimizer holds no tensor of the model, or `every` or `start` is not a whole number.

    Example:
        >>> model = nn.Linear(4, 4)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        >>> rotation = Rotation(model, optimizer, every=1)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> [step for step, values in rotation.flush()]
        [0, 0]
        >>> rotation.close()
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, every: int = 10, start: int = 0) -> None:
        self.every, self.step = whole("every", every, low=1), whole("start", start)
        group = {p: i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self.views = tuple(view for view in tensors(model) if view.parameter in group)
        if not self.views:
            raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's optimizer.")
        self._group = np.array([group[view.parameter] for view in self.views])
        self._size = np.array([view.view().numel() for view in self.views], dtype=np.float64)
        self._parameters = list(dict.fromkeys(view.parameter for view in self.views))
        self._copies = [torch.empty_like(p, dtype=wide(p), requires_grad=False) for p in self._parameters]
        copy_of = dict(zip(self._parameters, self._copies, strict=True))
        self._before = [view.of(copy_of[view.parameter]) for view in self.views]
        self._pending: list[tuple[int, list[int], Tensor, list[Rates]]] = []
        self._norm0 = norms([view.view() for view in self.views]) if start == 0 else None
        self._active: list[int] = []
        self._grad_norms: Tensor | None = None
        self._rates: list[Rates] = []
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self.step % self.every:
            return
        with torch.no_grad():
            grads = [view.parameter.grad for view in self.views]
            self._active = [i for i, grad in enumerate(grads) if grad is not None]
            if not self._active:
                return
            self._grad_norms = norms([self.views[i].of(g.to_dense()) for i, g in enumerate(grads) if g is not None])
            self._rates = [rates(optimizer, group) for group in optimizer.param_groups]
            torch._foreach_copy_(self._copies, self._parameters)

    def _after_step(self, *_: Any) -> None:
        step, self.step = self.step, self.step + 1
        if step % self.every or not self._active:
            return
        with torch.no_grad():
            before = [self._before[i] for i in self._active]
            r = norms(before)
            r_after = norms([self.views[i].of(self.views[i].parameter) for i in self._active])
            torch._foreach_sub_(self._copies, self._parameters)  # in place: the copies now hold w - w'
            values = torch.stack([r, r_after, norms(before), self._grad_norms])
            self._pending.append((step, self._active, values, self._rates))

    def flush(self) -> list[Measurement]:
        """Fetch what was measured since the last flush: the probe's only wait for the device.

        Returns:
            Pairs (step, {quantity: {tensor: value}}), in order; the key of a global value is "".
        """
        pending, self._pending = self._pending, []
        norm0, self._norm0 = self._norm0, None
        fetched = iter(fetch([v for *_, v, _ in pending] + ([] if norm0 is None else [norm0])))
        measured = [(step, self._quantities(active, next(fetched), rates)) for step, active, _, rates in pending]
        if norm0 is not None:
            measured.insert(0, (0, {"norm0": self._named(range(len(self.views)), next(fetched))}))
        return measured

    def close(self) -> None:
        """Remove the hooks from the optimizer; what was measured can still be flushed."""
        for handle in self._handles:
            handle.remove()

    def _quantities(self, active: list[int], values: Array, rates: list[Rates]) -> dict[str, dict[str, float]]:
        before, after, change, grad = values
        group, size = self._group[active], self._size[active]
        lr, shrink, is_sgd = np.array([tuple(map(float, rate)) for rate in rates])[group].T
        with np.errstate(divide="ignore", invalid="ignore"):  # a tensor of zeros has no direction: its angle is nan
            named = {
                "norm": after,
                "angle": angle(before, after, change),
                "relative_update": gradient_part(before, after, change, shrink) / before,
                "effective_lr": np.where(is_sgd, lr / before**2, lr * np.sqrt(size) / before),
                "grad_norm": grad,
            }
        return {quantity: self._named(active, row) for quantity, row in named.items()} | {"lr": {"": float(rates[0][0])}}

    def _named(self, active: Sequence[int], values: Array) -> dict[str, float]:
        return {self.views[i].name: value for i, value in zip(active, values.tolist(), strict=True)}


def angle(before: Array, after: Array, change: Array) -> Array:
    """Angle between two vectors from their norms and that of their difference, accurate however small it is.

    Args:
        before: |w|.
        after: |w'|.
        change: |w' - w|, from the difference vector itself.

    Returns:
        Angles in rad, in [0, pi].

    Example:
        >>> float(angle(np.array(1.0), np.array(1.0), np.array(1e-9)))
        1e-09
    """
    chord2 = np.clip((change**2 - (after - before) ** 2) / (before * after), 0.0, 4.0)
    return 2 * np.arctan2(np.sqrt(chord2), np.sqrt(4 - chord2))


def gradient_part(before: Array, after: Array, change: Array, shrink: Array) -> Array:
    """Norm of w' - (1 - shrink) w: the step without its decoupled decay.

    Args:
        before: |w|.
        after: |w'|.
        change: |w' - w|.
        shrink: Fraction by which decay alone shrinks w in this step.

    Returns:
        The norms.
    """
    inner = (after**2 - before**2 - change**2) / 2  # <w, w' - w>
    return np.sqrt(np.maximum(change**2 + shrink * (2 * inner + shrink * before**2), 0.0))


def rates(optimizer: Optimizer, group: dict[str, Any]) -> Rates:
    """Learning rate, decoupled shrink per step, and whether the optimizer is SGD, of one parameter group now."""
    lr = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, DECOUPLED))
    return lr, lr * group.get("weight_decay", 0.0) if decoupled else 0.0, isinstance(optimizer, torch.optim.SGD)


def norms(vectors: Sequence[Tensor]) -> Tensor:
    """Frobenius norms of many tensors, accumulated in float64, without waiting for the device.

    Args:
        vectors: Tensors of any floating type; of a DTensor the norm is that of the whole tensor, not of the shard.

    Returns:
        One float64 number a tensor, on the device of the first.
    """
    each = torch._foreach_norm(list(vectors), 2, dtype=torch.float64)
    if any(isinstance(norm, DTensor) for norm in each):
        each = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in each]
    return torch.stack([norm.to(each[0].device) for norm in each])


def fetch(parts: Sequence[Tensor]) -> list[Array]:
    """Bring tensors to the CPU in a single transfer.

    Args:
        parts: Float64 tensors on one device.

    Returns:
        The arrays, in the same shapes.
    """
    if not parts:
        return []
    flat = torch.cat([part.flatten() for part in parts]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts])[:-1]
    return [piece.reshape(part.shape) for piece, part in zip(np.split(flat, ends), parts, strict=True)]


def wide(parameter: Tensor) -> torch.dtype:
    """Type of the copy in which differences are taken: exact for neighbouring weights, and cheap to reduce.

    A GPU kernel widens to float64 as it reads; the CPU's would first convert the whole tensor, so there the copy is
    float64 at once.
    """
    return torch.float64 if parameter.device.type == "cpu" else torch.promote_types(parameter.dtype, torch.float32)
