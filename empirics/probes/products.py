# pyright: reportPrivateImportUsage=false
"""The inner products that one optimizer step leaves behind, of every tensor, without waiting for the device.

Rows of the result, with weights w before and w' after the step, gradient g and D = w - w':

    |g|^2, |w|^2, |w'|^2, |D|^2, <w', D>

Two ways to the same numbers: tensor by tensor with dot products, which keeps each tensor in a CPU's cache, and list by
list with torch's foreach kernels, which are few launches on a GPU and reduce a DTensor over all its shards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from empirics.tensors import TensorView

CHUNK = 2**20  # a longer float32 dot product loses digits: 1e-5 at 2 million terms, 1e-3 at 40 million


class ByTensor:
    """Dot products tensor by tensor; float32 sums over at most `CHUNK` terms."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.views = views
        self.copies = [torch.empty_like(view.view().reshape(-1), dtype=wide(view.view())) for view in views]
        self.dots = [
            dot if c.numel() > CHUNK or c.dtype != v.parameter.dtype else torch.dot
            for c, v in zip(self.copies, views, strict=True)
        ]
        self.rows: tuple[list[Tensor], ...] = ()

    def before(self, active: Sequence[int]) -> None:
        """Copy the weights and take the products that are known before the step.

        Args:
            active: Indices of the views whose parameters have gradients.
        """
        self.rows = grads, olds, *_ = [], [], [], [], []
        for i in active:
            view, copy, dot = self.views[i], self.copies[i], self.dots[i]
            grad = view.of(view.parameter.grad).reshape(-1)
            copy.copy_(view.of(view.parameter).reshape(-1))
            grads.append(dot(grad, grad))
            olds.append(dot(copy, copy))

    def after(self, active: Sequence[int]) -> Tensor:
        """Take the other products.

        Args:
            active: As before.

        Returns:
            Shape (5, number of active views), on the device.
        """
        *_, news, changes, inners = self.rows
        for i in active:
            view, copy, dot = self.views[i], self.copies[i], self.dots[i]
            weights = view.of(view.parameter).reshape(-1)
            copy.sub_(weights)
            news.append(dot(weights, weights))
            changes.append(dot(copy, copy))
            inners.append(dot(weights, copy))
        return torch.stack([product for row in self.rows for product in row]).view(5, -1)


class ByList:
    """Norms list by list with foreach kernels, accumulated in float64."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.views = views
        self.copies = [torch.empty_like(view.view(), dtype=wide(view.view())) for view in views]
        self.rows: tuple[Tensor, ...] = ()

    def before(self, active: Sequence[int]) -> None:
        """As in `ByTensor`."""
        views, copies = [self.views[i] for i in active], [self.copies[i] for i in active]
        torch._foreach_copy_(copies, [view.of(view.parameter) for view in views])
        grads = [view.of(view.parameter.grad) for view in views if view.parameter.grad is not None]
        self.rows = norms(grads), norms(copies)

    def after(self, active: Sequence[int]) -> Tensor:
        """As in `ByTensor`."""
        copies = [self.copies[i] for i in active]
        weights = [self.views[i].of(self.views[i].parameter) for i in active]
        torch._foreach_sub_(copies, weights)
        g2, old2, new2, change2 = (row.square() for row in (*self.rows, norms(weights), norms(copies)))
        return torch.stack([g2, old2, new2, change2, (old2 - new2 - change2) / 2])


def meter(views: Sequence[TensorView]) -> ByTensor | ByList:
    """The faster of the two for these tensors."""
    plain = all(view.parameter.device.type == "cpu" and not hasattr(view.parameter, "full_tensor") for view in views)
    return ByTensor(views) if plain else ByList(views)


def norms(vectors: Sequence[Tensor]) -> Tensor:
    """Frobenius norms of many tensors.

    Args:
        vectors: Of any floating type; the norm of a DTensor is that of the whole tensor, not of this rank's shard.

    Returns:
        Float64 vector, one norm a tensor, on the device of the first.
    """
    each = torch._foreach_norm(list(vectors), 2, dtype=torch.float64)
    each = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in each]
    return torch.stack([norm.to(each[0].device) for norm in each])


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product of two long or low-precision vectors: float32 sums over pieces, added in float64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    pieces = zip(x.to(dtype).split(CHUNK), y.to(dtype).split(CHUNK), strict=True)
    return torch.stack([torch.dot(a, b) for a, b in pieces]).sum(dtype=torch.float64)


def wide(weights: Tensor) -> torch.dtype:
    """The type in which weights are subtracted: float32 or better, so that neighbouring weights differ exactly."""
    return torch.promote_types(weights.dtype, torch.float32)
