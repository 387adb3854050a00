"""BatchNorm statistics recomputed exactly: at large learning rates the running averages are stale."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from theory.errors import require, whole

M = TypeVar("M", bound=nn.Module)

CHUNK = 8_192
"""Most images that go through a network at once."""


def recomputed(model: M, images: Tensor, *, chunk: int = CHUNK) -> M:
    """Copy a model, with its BatchNorm statistics those of the given images.

    All images go through the copy once, as one batch: each layer stores mean and (biased) variance of its input, then
    normalises with them. So the copy in eval mode computes on these images exactly what training mode would on the full
    batch, and layers further on see correctly normalised inputs, which averaging over small batches does not give.

    More than `chunk` images go through in chunks, and every layer stores mean and variance of them all. Each chunk is
    normalised with its own statistics, which differ from those by a part in the square root of its numbers a channel.

    Args:
        model: Any module; stays as it is, as do the random number generators.
        images: Model input, shape (N, ...), on the model's device.
        chunk: Most images at once; needs the memory of one forward pass on them.

    Returns:
        The copy, in eval mode. A model without BatchNorm is only copied.

    Raises:
        InputError: If there are no images.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> recomputed(model, torch.tensor([[0.0], [2.0]]))(torch.tensor([[2.0]])).round(decimals=3).item()
        1.0
    """
    require(len(images) > 0, "images", tuple(images.shape), "at least one image")
    fresh = copy.deepcopy(model).eval()
    layers = [m for m in fresh.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    sums = [_Sums(layer) for layer in layers]
    if layers:
        with torch.no_grad():
            for part in images.tensor_split(-(-len(images) // whole("chunk", chunk, low=1))):
                fresh(part)
    for each in sums:
        each.close()
    return fresh


class _Sums:
    """Statistics of a layer's inputs so far; the layer normalises with those of the present ones."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer, self.parts = layer, list[tuple[int, Tensor, Tensor]]()
        self.handle = layer.register_forward_pre_hook(self._store)

    def _store(self, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x, dim=axes, correction=0)
        layer.running_mean, layer.running_var = mean, variance
        self.parts.append((x.numel() // x.shape[1], mean, variance))

    def close(self) -> None:
        """Leave mean and variance of everything that was seen to the layer."""
        self.handle.remove()
        if len(self.parts) > 1:
            counts, means, variances = zip(*self.parts, strict=True)
            share = torch.tensor(counts, dtype=torch.float64, device=means[0].device)[:, None] / sum(counts)
            all_means, all_variances = (torch.stack(each).double() for each in (means, variances))
            mean = (share * all_means).sum(0)
            variance = (share * (all_variances + (all_means - mean).square())).sum(0)
            self.layer.running_mean, self.layer.running_var = mean.to(means[0]), variance.to(means[0])
