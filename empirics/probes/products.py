# pyright: reportPrivateImportUsage=false
"""The inner products that one optimizer step leaves behind, of every tensor, without waiting for the device.

Rows of the result, with weights w before and w' after the step, gradient g and D = w - w':

    |g|^2, |w|^2, |D|^2, <w', D>

Two ways to the same numbers. Dot products are the fastest on a CPU, where a float64 norm of float32 weights converts
them first. Norms of lists are a few kernel launches on a GPU, accumulate in float64, and reduce a DTensor over all its
shards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from empirics.tensors import TensorView

CHUNK = 2**16  # a float32 dot product loses digits with its length: 1e-5 at a million terms, 1e-3 at 40 million


class Vector:
    """A tensor's live weights, its copy, and the dot product that suits them, all as vectors."""

    def __init__(self, view: TensorView) -> None:
        weights = view.view()
        self.view = view
        self.copy = torch.empty(weights.numel(), dtype=wide(weights))
        short = weights.numel() <= CHUNK and weights.dtype == self.copy.dtype
        self.dot = torch.dot if short else dot
        self._weights, self._address = torch.empty(0), 0

    def weights(self) -> Tensor:
        """The live weights; looked up anew only if they are no longer where they were."""
        if self._address != self.view.parameter.data_ptr():
            weights = self.view.view()
            self._weights = weights.reshape(-1)
            self._address = self.view.parameter.data_ptr() if weights.is_contiguous() else 0
        return self._weights


class ByDot:
    """Dot products on the CPU, float32 sums over at most `CHUNK` terms."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.vectors = [Vector(view) for view in views]
        short = all(vector.dot is torch.dot for vector in self.vectors)
        self.grad_dtype = None if short else torch.float64
        self.rows: tuple[list[float], ...] = ()

    def before(self, active: Sequence[int], grads: list[Tensor]) -> None:
        """Copy the weights and take the products that are known before the step.

        Args:
            active: Indices of the views whose parameters have gradients.
            grads: Their gradients, in the views' shapes.
        """
        vectors = [self.vectors[i] for i in active]
        grads2 = [norm.item() ** 2 for norm in torch._foreach_norm(grads, 2, self.grad_dtype)]
        torch._foreach_copy_([v.copy for v in vectors], [v.weights() for v in vectors])
        self.rows = grads2, [v.dot(v.copy, v.copy).item() for v in vectors]

    def after(self, active: Sequence[int]) -> Tensor:
        """Take the other products.

        Args:
            active: As before.

        Returns:
            Shape (4, number of active views).
        """
        vectors = [self.vectors[i] for i in active]
        weights = [v.weights() for v in vectors]
        torch._foreach_sub_([v.copy for v in vectors], weights)
        changes2 = [v.dot(v.copy, v.copy).item() for v in vectors]
        inners = [v.dot(v.copy, w).item() for v, w in zip(vectors, weights, strict=True)]
        return torch.tensor([*self.rows, changes2, inners], dtype=torch.float64)


class ByNorm:
    """Norms, accumulated in float64, on any device and of DTensors."""

    def __init__(self, views: Sequence[TensorView]) -> None:
        self.views = views
        self.copies = [torch.empty_like(view.view(), dtype=wide(view.view())) for view in views]
        self.rows: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def before(self, active: Sequence[int], grads: list[Tensor]) -> None:
        """As in `ByDot`."""
        copies = [self.copies[i] for i in active]
        weights = [self.views[i].of(self.views[i].parameter) for i in active]
        if any(map(is_sharded, weights)):  # torch has no foreach copy of DTensors
            for copy, live in zip(copies, weights, strict=True):
                copy.copy_(live)
        else:
            torch._foreach_copy_(copies, weights)
        self.rows = norms(grads), norms(copies)

    @torch.no_grad()
    def after(self, active: Sequence[int]) -> Tensor:
        """As in `ByDot`."""
        copies = [self.copies[i] for i in active]
        weights = [self.views[i].of(self.views[i].parameter) for i in active]
        torch._foreach_sub_(copies, weights)
        grad2, old2, new2, change2 = (row.square() for row in (*self.rows, norms(weights), norms(copies)))
        return torch.stack([grad2, old2, change2, (old2 - new2 - change2) / 2])


def meter(views: Sequence[TensorView]) -> ByDot | ByNorm:
    """The faster of the two for these tensors."""
    plain = all(view.parameter.device.type == "cpu" and not is_sharded(view.parameter) for view in views)
    return ByDot(views) if plain else ByNorm(views)


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
