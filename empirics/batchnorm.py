"""BatchNorm statistics recomputed exactly: at large learning rates the running averages are stale."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from theory.errors import require

M = TypeVar("M", bound=nn.Module)


def recomputed(model: M, images: Tensor) -> M:
    """Copy a model, with its BatchNorm statistics those of the given images.

    All images go through the copy once, as one batch: each layer stores mean and (biased) variance of its input, then
    normalises with them. So the copy in eval mode computes on these images exactly what training mode would on the full
    batch, and layers further on see correctly normalised inputs, which averaging over small batches does not give.

    Args:
        model: Any module; stays as it is, as do the random number generators.
        images: Model input, shape (N, ...), on the model's device; needs the memory of one forward pass on all of them.

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
    handles = [layer.register_forward_pre_hook(_store_statistics) for layer in layers]
    if layers:
        with torch.no_grad():
            fresh(images)
    for handle in handles:
        handle.remove()
    return fresh


def _store_statistics(layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0]
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x, dim=axes, correction=0)
    layer.running_mean, layer.running_var = mean, variance
