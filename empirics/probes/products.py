# pyright: reportPrivateImportUsage=false
"""The inner products that one optimizer step leaves behind, of every tensor, without waiting for the device.

Rows of the result, with weights w before and w' after the step, gradient g and D = w - w':

    |g|^2, |w|^2, |D|^2, <w', D>

Two ways to the same numbers: tensor by tensor with dot products, which keeps each tensor in a CPU's cache, and list by
list with torch's foreach kernels, which are few launches on a GPU and reduce a DTensor over all its shards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from empirics.tensors import TensorView

CHUNK = 2**16  # a float32 dot product loses digits with its length: 1e-5 at a million terms, 1e-3 at 40 million


class Slot:
    """Room for a copy of one tensor, and quick access to the live one."""

    def __init__(self, view: TensorView) -> None:
        weights = view.view()
        self.view = view
        self.copy = torch.empty(weights.numel(), dtype=wide(weights))
        short = weights.numel() <= CHUNK and weights.dtype == self.copy.dtype
        self.dot = torch.dot if short else dot
        self._vector, self._address = torch.empty(0), 0

    def weights(self) -> Tensor:
        """The live weights as a vector; looked up anew only if they are no longer where they were."""
        if self._address != self.view.parameter.data_ptr():
            weights = self.view.view()
            self._vector = weights.reshape(-1)
            self._address = self.view.parameter.data_ptr() if weights.is_contiguous() else 0
        return self._vector

    def grad(self) -> Tensor:
        """The gradient as a vector."""
        grad = self.view.parameter.grad
        assert grad is not None
        return self.view.of(grad).reshape(-1)


class ByTensor:
    """Dot products tensor by tensor; float32 sums over at most `CHUNK` terms."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.slots = [Slot(view) for view in views]
        self.rows: tuple[list[Tensor], ...] = ()

    def before(self, active: Sequence[int]) -> None:
        """Copy the weights and take the products that are known before the step.

        Args:
            active: Indices of the views whose parameters have gradients.
        """
        self.rows = grads, olds, _, _ = [], [], [], []
        for slot in map(self.slots.__getitem__, active):
            copy, grad = slot.copy.copy_(slot.weights()), slot.grad()
            grads.append(slot.dot(grad, grad))
            olds.append(slot.dot(copy, copy))

    def after(self, active: Sequence[int]) -> Tensor:
        """Take the other products.

        Args:
            active: As before.

        Returns:
            Shape (4, number of active views), on the device.
        """
        _, _, changes, inners = self.rows
        for slot in map(self.slots.__getitem__, active):
            weights = slot.weights()
            copy = slot.copy.sub_(weights)
            changes.append(slot.dot(copy, copy))
            inners.append(slot.dot(weights, copy))
        return torch.stack([product for row in self.rows for product in row]).view(4, -1)


class ByList:
    """Norms list by list with foreach kernels, accumulated in float64."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.views = views
        self.copies = [torch.empty_like(view.view(), dtype=wide(view.view())) for view in views]
        self.rows: tuple[Tensor, ...] = ()

    def before(self, active: Sequence[int]) -> None:
        """As in `ByTensor`."""
        views, copies = [self.views[i] for i in active], [self.copies[i] for i in active]
        weights = [view.of(view.parameter) for view in views]
        if any(map(is_sharded, weights)):  # torch has no foreach copy of DTensors
            for copy, live in zip(copies, weights, strict=True):
                copy.copy_(live)
        else:
            torch._foreach_copy_(copies, weights)
        grads = [view.of(view.parameter.grad) for view in views if view.parameter.grad is not None]
        self.rows = norms(grads), norms(copies)

    def after(self, active: Sequence[int]) -> Tensor:
        """As in `ByTensor`."""
        copies = [self.copies[i] for i in active]
        weights = [self.views[i].of(self.views[i].parameter) for i in active]
        torch._foreach_sub_(copies, weights)
        grad2, old2, new2, change2 = (row.square() for row in (*self.rows, norms(weights), norms(copies)))
        return torch.stack([grad2, old2, change2, (old2 - new2 - change2) / 2])


def meter(views: Sequence[TensorView]) -> ByTensor | ByList:
    """The faster of the two for these tensors."""
    plain = all(view.parameter.device.type == "cpu" and not is_sharded(view.parameter) for view in views)
    return ByTensor(views) if plain else ByList(views)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this is a DTensor, asked without importing torch.distributed.tensor, which takes a second."""
    return hasattr(tensor, "full_tensor")


def norms(vectors: Sequence[Tensor]) -> Tensor:
    """Frobenius norms of many tensors.

    Args:
        vectors: Of any floating type; the norm of a DTensor is that of the whole tensor, not of this rank's shard.

    Returns:
        Float64 vector, one norm a tensor, on the device of the first.
    """
    each = torch._foreach_norm(list(vectors), 2, dtype=torch.float64)
    each = [norm.full_tensor() if is_sharded(norm) else norm for norm in each]
    return torch.stack([norm.to(each[0].device) for norm in each])


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of two long or low-precision vectors: float32 sums over pieces, added in float64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    pieces = zip(x.to(dtype).split(CHUNK), y.to(dtype).split(CHUNK), strict=True)
    return torch.stack([torch.dot(a, b) for a, b in pieces]).sum(dtype=torch.float64)


def wide(weights: Tensor) -> torch.dtype:
    """The type in which weights are subtracted: float32 or better, so that neighbouring weights differ exactly."""
    return torch.promote_types(weights.dtype, torch.float32)
