"""Norms, angles and effective learning rates of every tensor, measured around the optimizer's own step.

The angle between weights w and w' is that of the chord between the unit vectors u and u',

    |u - u'|^2 = (|w - w'|^2 - (|w'| - |w|)^2) / (|w| |w'|),      angle = 2 atan2(|u - u'|, |u + u'|),

in which no small number is the difference of two rounded large ones. Results stay on the device until `flush`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.probes.products import meter, norms
from empirics.tensors import tensors
from theory.errors import InputError, whole

Array = NDArray[np.float64]
Quantities = dict[str, dict[str, float]]
Measurement = tuple[int, Quantities]
Rates = tuple[float | Tensor, float | Tensor, bool]

DECOUPLED = (torch.optim.AdamW, torch.optim.Muon)  # other optimizers that have the choice say so in their groups


class Rotation:
    """Watch an optimizer: two removable hooks that change nothing about the training.

    Per tensor, at measured step t, from the weights w before and w' after it: `norm` |w'|, `angle` between w and w'
    (rad), `relative_update` |w' - a w|/|w| with a = 1 - lr*weight_decay under decoupled decay and 1 under coupled
    decay, `effective_lr` (lr/|w|^2 for SGD, lr*sqrt(size)/|w| for the others) and `grad_norm` (of the gradient as the
    optimizer sees it: after clipping). Besides, `lr` of the first parameter group, and `norm0`, the norms before step
    0. Tensors without a gradient at a step are left out of it; a tensor of zeros has no angle (nan).

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
        >>> [(step, sorted(values)) for step, values in rotation.flush()][1]
        (0, ['angle', 'effective_lr', 'grad_norm', 'lr', 'norm', 'relative_update'])
        >>> rotation.close()
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, every: int = 10, start: int = 0) -> None:
        self.every, self.step = whole("every", every, low=1), whole("start", start)
        group = {p: i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self.views = tuple(view for view in tensors(model) if view.parameter in group)
        if not self.views:
            raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's own.")
        self._names = [view.name for view in self.views]
        self._group = np.array([group[view.parameter] for view in self.views])
        self._size = np.array([view.view().numel() for view in self.views])
        self._meter = meter(self.views)
        self._active: list[int] = []
        self._rates: list[Rates] = []
        self._pending: list[tuple[int, list[int], list[Rates], Tensor]] = []
        self._norm0 = norms([view.view() for view in self.views]) if start == 0 else None
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    def flush(self) -> list[Measurement]:
        """Fetch what was measured since the last flush: the only time the probe waits for the device.

        Returns:
            Pairs (step, {quantity: {tensor: value}}), in order; the key of a global value is "".
        """
        pending, self._pending = self._pending, []
        norm0, self._norm0 = self._norm0, None
        measured: list[Measurement] = []
        if norm0 is not None:
            measured.append((0, {"norm0": dict(zip(self._names, norm0.tolist(), strict=True))}))
        for active, batch in groupby(pending, key=lambda measurement: measurement[1]):
            steps, _, rates, products = zip(*batch, strict=True)
            values = self._quantities(active, rates, torch.stack(products).double().cpu().numpy())
            measured += zip(steps, values, strict=True)
        return measured

    def close(self) -> None:
        """Remove the hooks from the optimizer; what was measured can still be flushed."""
        for handle in self._handles:
            handle.remove()

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self.step % self.every == 0:
            grads = [
                (i, view.of(grad)) for i, view in enumerate(self.views) if (grad := view.parameter.grad) is not None
            ]
            self._active = [i for i, _ in grads]
            self._rates = [read_rates(optimizer, group) for group in optimizer.param_groups]
            if grads:
                self._meter.before(self._active, [grad.to_dense() if grad.is_sparse else grad for _, grad in grads])

    def _after_step(self, *_: Any) -> None:
        if self.step % self.every == 0 and self._active:
            self._pending.append((self.step, self._active, self._rates, self._meter.after(self._active)))
        self.step += 1

    def _quantities(self, active: list[int], rates: Sequence[list[Rates]], products: Array) -> list[Quantities]:
        """From rates a step and group, and products (steps, 4, tensors), to what is recorded of each step."""
        names, size = [self._names[i] for i in active], self._size[active]
        values = np.array([[[float(x) for x in group] for group in step] for step in rates])
        lr, shrink, is_sgd = np.moveaxis(values[:, self._group[active]], 2, 0)
        grad2, old2, change2, inner = np.moveaxis(products, 1, 0)  # inner = <w', w - w'>
        with np.errstate(divide="ignore", invalid="ignore"):  # zero tensors, and runs that overflow
            new2 = np.maximum(old2 - 2 * inner - change2, 0.0)
            grad, old, new, change = np.sqrt([grad2, old2, new2, change2])
            growth = -(2 * inner + change2) / (old + new)  # |w'| - |w|
            update2 = change2 - 2 * shrink * (inner + change2) + shrink**2 * old2
            tables = {
                "norm": new,
                "angle": angle(old, new, change, growth=growth),
                "relative_update": np.sqrt(np.maximum(update2, 0.0)) / old,
                "effective_lr": np.where(is_sgd, lr / old2, lr * np.sqrt(size) / old),
                "grad_norm": grad,
            }
        columns = [
            [(name, dict(zip(names, row, strict=True))) for row in table.tolist()] for name, table in tables.items()
        ]
        columns.append([("lr", {"": rate}) for rate in values[:, 0, 0].tolist()])
        return [dict(step) for step in zip(*columns, strict=True)]


def angle(old: Array, new: Array, change: Array, *, growth: Array) -> Array:
    """Angle between two vectors, accurate however small it is.

    Args:
        old: |w|.
        new: |w'|.
        change: |w - w'|, from the difference vector itself.
        growth: |w'| - |w|, likewise without cancellation.

    Returns:
        Angles in rad, in [0, pi].

    Example:
        >>> float(angle(np.float64(1), np.float64(1), np.float64(1e-9), growth=np.float64(0)))
        1e-09
    """
    chord2 = np.clip((change**2 - growth**2) / (old * new), 0.0, 4.0)
    return 2 * np.arctan2(np.sqrt(chord2), np.sqrt(4 - chord2))


def read_rates(optimizer: Optimizer, group: dict[str, Any]) -> Rates:
    """Of one parameter group now: learning rate, shrink by decoupled decay in this step, whether the rule is SGD."""
    lr = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, DECOUPLED))
    return lr, lr * group.get("weight_decay", 0.0) if decoupled else 0.0, isinstance(optimizer, torch.optim.SGD)
