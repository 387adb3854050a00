"""Angles over many steps, of tensors and of rows, and how much of a step and a gradient is radial.

Angle over n steps against n times the angle of one says how straight the motion is: n for a fixed direction, sqrt(n)
for a random walk. As in `rotation`, by the chord from the difference vector, so that no digit cancels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.probes.bill import Bill
from empirics.probes.products import is_sharded, wide
from empirics.probes.rotation import Measurement, Quantities, angle
from empirics.tensors import TensorView, tensors
from theory.errors import InputError, require, whole

Array = NDArray[np.float64]


class Windows:
    """Watch an optimizer over windows of many steps: two removable hooks that change nothing about the training.

    A window opens before step 0, every, 2*every, ...; the weights w0 then are copied, the only memory that is held:
    one copy, whatever the spans. After each span n of steps, per tensor with weights w:

    - `angle_<n>` (rad): angle between w0 and w, over n steps (`angle_1` is `angle` of `Rotation` at that step);
    - `row_angle_<n>`: the same of each row, for the tensors in `rows` as "<tensor>[<row>]", and for every tensor of two
      or more dimensions the RMS over its rows (those that are not zero), as "<tensor>". A row is what one output sees:
      dimension 0, but a column in Hugging Face's Conv1D.

    And of the window's first step, with gradient g (as the optimizer sees it) and update D = w - w0, decay included:

    - `grad_radial`: <g, w0>/(|g||w0|), the cosine; 0 for a scale-invariant tensor. The tangential part of the gradient
      is sqrt(1 - grad_radial^2) of it;
    - `update_radial`: <D, w0>/|w0|^2, the signed relative change along w0;
    - `update_tangential`: |D - update_radial*w0|/|w0|.

    Each is filed under the last step of its span. Tensors without a gradient at the first step lack the two splits; a
    tensor of zeros has no angle (nan). Norms of DTensors are those of the whole tensor, not of this rank's shard.

    Policy: reads weights and gradients around the optimizer's step; no forward pass, so modes, buffers, dropout,
    BatchNorm and random numbers are not involved. Sums of float32 products are accumulated in float64. Resuming inside
    a window waits for the next one, unless it is given the window's `state_dict`.

    Args:
        model: The model whose tensors are measured.
        optimizer: Its optimizer; tensors that are not in it are left out.
        spans: Numbers of steps, rising.
        every: Steps between two openings, at least the largest span; None: the largest span.
        start: Number of the next step (that of the checkpoint when resuming).
        rows: Names of tensors whose rows are recorded one by one.
        bill: Where the time is charged, as "windows".

    Raises:
        InputError: If the optimizer holds no tensor of the model, a name in `rows` is none of them, or a number is not
            allowed.

    Example:
        >>> model = nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> windows = Windows(model, optimizer, spans=(1, 2))
        >>> for _ in range(2):
        ...     model(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        >>> [(step, sorted(values)) for step, values in windows.flush()][1]
        (1, ['angle_2', 'row_angle_2'])
        >>> windows.close()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        spans: Sequence[int] = (1, 10, 100),
        every: int | None = None,
        start: int = 0,
        rows: Collection[str] = (),
        bill: Bill | None = None,
    ) -> None:
        self.spans, self.step = tuple(whole("spans", n, low=1) for n in spans), whole("start", start)
        require(len(spans) > 0 and list(spans) == sorted(set(spans)), "spans", spans, "rising numbers of steps")
        self.every, self.bill = whole("every", every or spans[-1], low=self.spans[-1]), bill or Bill()
        held = {p for group in optimizer.param_groups for p in group["params"]}
        self.views = tuple(view for view in tensors(model) if view.parameter in held)
        if not self.views:
            raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's own.")
        self._axes = [row_axis(model, view) for view in self.views]
        matrices = {view.name for view, axis in zip(self.views, self._axes, strict=True) if axis is not None}
        for name in rows:
            require(name in matrices, "rows", name, "names of the model's tensors of two or more dimensions")
        self.rows = frozenset(rows)
        self._copies: list[Tensor] = []
        self._opened: int | None = None
        self._grads: dict[int, Tensor] = {}
        self._pending: list[tuple[int, int, list[int], Tensor]] = []
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    def flush(self) -> list[Measurement]:
        """Fetch what was measured since the last flush: the only time the probe waits for the device.

        Returns:
            Pairs (step, {quantity: {tensor or row: value}}), in order.
        """
        with self.bill.charge("windows"):
            pending, self._pending = self._pending, []
            return [(step, self._quantities(span, active, flat.cpu().numpy())) for step, span, active, flat in pending]

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on inside an open window: the step of its opening, and the weights then, not copied.

        Returns:
            Tensors and numbers; empty outside of windows.
        """
        inside = self._opened is not None and self.step - self._opened < self.spans[-1]
        return {"opened": self._opened, "copies": list(self._copies)} if inside else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on inside the window of a `state_dict`; one of other tensors is ignored.

        Args:
            state: What it returned.
        """
        copies = state.get("copies", [])
        if [tuple(copy.shape) for copy in copies] == [view.shape for view in self.views]:
            self._opened = state["opened"]
            self._copies = [c.to(view.parameter.device) for c, view in zip(copies, self.views, strict=True)]

    def close(self) -> None:
        """Remove the hooks and free the copy; what was measured can still be flushed."""
        for handle in self._handles:
            handle.remove()
        self._copies, self._opened = [], None

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        if self.step % self.every:
            return
        with self.bill.charge("windows"):
            if not self._copies:
                self._copies = [torch.empty_like(view.view(), dtype=wide(view.view())) for view in self.views]
            self._grads, self._opened = {}, self.step
            for i, (view, copy) in enumerate(zip(self.views, self._copies, strict=True)):
                copy.copy_(view.view())
                grad = view.parameter.grad
                if grad is not None:
                    g = view.of(grad.to_dense() if grad.is_sparse else grad).to(copy.dtype)
                    self._grads[i] = torch.stack([total(g * copy), total(g * g)])

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        span = 0 if self._opened is None else self.step + 1 - self._opened
        if span in self.spans:
            with self.bill.charge("windows"):
                rows = [row_sums(*each) for each in zip(self._copies, self._weights(), self._axes, strict=True)]
                grads = self._grads if span == 1 else {}
                kept = [x for view, x in zip(self.views, rows, strict=True) if view.name in self.rows]
                parts = [*grads.values(), tensor_sums(rows), *kept]
                flat = torch.cat([part.reshape(-1).to(parts[0].device) for part in parts])
                self._pending.append((self.step, span, list(grads), flat))
        self.step += 1

    def _weights(self) -> list[Tensor]:
        return [view.view() for view in self.views]

    def _quantities(self, span: int, active: list[int], flat: Array) -> Quantities:
        """From what `_after_step` packed to what is recorded of one span."""
        grads, sums, flat = np.split(flat, np.cumsum([2 * len(active), 5 * len(self.views)]))
        totals = {view.name: row for view, row in zip(self.views, sums.reshape(-1, 5), strict=True)}
        each: dict[str, float] = {}
        for view, axis in zip(self.views, self._axes, strict=True):
            if view.name in self.rows:
                rows, flat = np.split(flat, [3 * view.shape[axis or 0]])
                each |= {f"{view.name}[{i}]": x for i, x in enumerate(angles(rows.reshape(3, -1)).tolist())}
        matrices = [view.name for view, axis in zip(self.views, self._axes, strict=True) if axis is not None]
        with np.errstate(invalid="ignore"):
            mean = {name: float(np.sqrt(totals[name][3] / totals[name][4])) for name in matrices}
        table = np.array(list(totals.values())).T
        quantities = {f"angle_{span}": dict(zip(totals, angles(table[:3]).tolist(), strict=True))}
        if mean:
            quantities[f"row_angle_{span}"] = mean | each
        if active:
            quantities |= self._splits([self.views[i].name for i in active], totals, grads.reshape(-1, 2))
        return quantities

    def _splits(self, names: list[str], totals: dict[str, Array], grads: Array) -> Quantities:
        """Radial and tangential parts, of the tensors that had a gradient."""
        old2, inner, change2 = np.array([totals[name][:3] for name in names]).T
        along, grad2 = grads.T
        with np.errstate(divide="ignore", invalid="ignore"):
            radial = -(inner + change2) / old2  # <w - w0, w0>/|w0|^2
            tables = {
                "grad_radial": along / np.sqrt(grad2 * old2),
                "update_radial": radial,
                "update_tangential": np.sqrt(np.maximum(change2 / old2 - radial**2, 0.0)),
            }
        return {quantity: dict(zip(names, row.tolist(), strict=True)) for quantity, row in tables.items()}


def row_axis(model: nn.Module, view: TensorView) -> int | None:
    """The dimension that counts a tensor's rows.

    Args:
        model: The tensor's model.
        view: The tensor.

    Returns:
        0, or 1 in a Conv1D, whose weight is (in, out); None for vectors, which have no rows.
    """
    if len(view.shape) < 2:
        return None
    owner = model.get_submodule(view.parameter_name.rpartition(".")[0])
    return 1 if type(owner).__name__ == "Conv1D" and len(view.shape) == 2 else 0


def total(x: Tensor) -> Tensor:
    """Sum of all elements, accumulated in float64; of a DTensor over all its shards."""
    summed = x.sum(dtype=torch.float64)
    return summed.full_tensor() if is_sharded(summed) else summed  # pyright: ignore[reportAttributeAccessIssue]


def row_sums(before: Tensor, after: Tensor, axis: int | None) -> Tensor:
    """<w0, w0>, <w, D> and <D, D> of every row, with D = w0 - w.

    Args:
        before: w0, in float32 or better.
        after: w.
        axis: The dimension that counts rows; None: all is one row.

    Returns:
        Float64, shape (3, rows), on the device.
    """
    after = after.to(before.dtype)
    change = before - after
    products = (before * before, after * change, change * change)
    if axis is None:
        return torch.stack([total(x) for x in products]).reshape(3, 1)
    others = [dim for dim in range(before.dim()) if dim != axis]
    summed = [x.sum(dim=others, dtype=torch.float64) for x in products]
    return torch.stack([x.full_tensor() if is_sharded(x) else x for x in summed])  # pyright: ignore[reportAttributeAccessIssue]


def angles(sums: Array) -> Array:
    """Angles between w0 and w from `row_sums`, shape (rows,); nan where one of the two is 0."""
    old2, inner, change2 = sums
    new2 = np.maximum(old2 - 2 * inner - change2, 0.0)
    old, new, change = np.sqrt([old2, new2, change2])
    with np.errstate(divide="ignore", invalid="ignore"):
        return angle(old, new, change, growth=-(2 * inner + change2) / (old + new))


def tensor_sums(rows: list[Tensor]) -> Tensor:
    """Sums over the rows of every tensor, in few launches.

    Args:
        rows: From `row_sums`, one a tensor.

    Returns:
        Shape (tensors, 5): the three sums, that of the squared angles of rows that are not 0, and how many those are.
    """
    old2, inner, change2 = joined = torch.cat([each.to(rows[0].device) for each in rows], dim=1)
    new2 = (old2 - 2 * inner - change2).clamp(min=0)
    growth = -(2 * inner + change2) / (old2.sqrt() + new2.sqrt())
    chord2 = ((change2 - growth.square()) / (old2 * new2).sqrt()).clamp(0, 4)
    square = (2 * torch.atan2(chord2.sqrt(), (4 - chord2).sqrt())).square()
    table = torch.cat([joined, square.nan_to_num()[None], square.isfinite()[None]])
    return torch.stack([part.sum(1) for part in table.split([each.size(1) for each in rows], dim=1)])
