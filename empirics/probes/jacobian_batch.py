"""What a batch is to a probe of single samples: how the model takes it, how it is cut, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from empirics.probes.twin import check_batch, leaves, unchanged
from theory.errors import InputError, require

Predict = Callable[[nn.Module, Any], Tensor]


def call(model: nn.Module, batch: Any) -> Tensor:
    """Logits of a batch: model(tensor), model(*tuple) or model(**mapping), and of what comes back the logits.

    Args:
        model: The model.
        batch: Its input.

    Returns:
        The logits.

    Example:
        >>> import torch
        >>> call(nn.Identity(), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if isinstance(batch, Mapping):
        outputs = model(**batch)
    else:
        outputs = model(*batch) if isinstance(batch, (list, tuple)) else model(batch)
    return outputs["logits"] if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)


def changed(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with every tensor in it changed.

    Args:
        batch: As in `leaves`.
        change: From a tensor to its successor.
    """
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: changed(part, change) for key, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)([changed(part, change) for part in batch])
    return batch


def count(batch: Any) -> int:
    """Number of samples: the length of the first tensor.

    Args:
        batch: As in `leaves`.

    Raises:
        InputError: If it is empty or holds no tensor.
    """
    check_batch(batch)
    first = next(leaves(batch), None)
    if first is None or first.dim() == 0:
        raise InputError(f"batch = {type(batch).__name__} holds no tensor with a sample a row: it must hold one.")
    return len(first)


def take(batch: Any, rows: Tensor) -> Any:
    """Some samples, as a copy of its own; tensors of another length than the batch's are taken as they are.

    Args:
        batch: As in `leaves`.
        rows: Indices of the samples.
    """
    n = count(batch)

    def pick(tensor: Tensor) -> Tensor:
        per_sample = tensor.dim() > 0 and len(tensor) == n
        return tensor.detach()[rows.to(tensor.device)] if per_sample else tensor.detach().clone()

    return changed(batch, pick)


def predicted(predict: Predict, model: nn.Module, batch: Any) -> Tensor:
    """Outputs of a batch, checked.

    Args:
        predict: From model and batch to outputs.
        model: The model.
        batch: Some samples; a model that changes them in place is refused.

    Returns:
        Shape (N, C), or (N, T, C) with T positions, such as tokens.

    Raises:
        InputError: If they are of another shape, constant, not finite, or the batch was changed.
    """
    try:
        with unchanged(batch):
            outputs = predict(model, batch)
    except RuntimeError as error:
        if "in-place" not in str(error):
            raise
        raise InputError(
            "batch is changed in place by the model: it must stay as it is, so clone it in forward."
        ) from None
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    fits = isinstance(outputs, Tensor) and outputs.dim() in (2, 3) and len(outputs) == count(batch)
    allowed = "logits (N, C) or (N, T, C) of N samples: name them with `predict`"
    require(fits, "model's output", found, allowed)
    require(outputs.requires_grad, "model's output", "a constant", "differentiable in what it is measured against")
    require(bool(outputs.detach().isfinite().all()), "model's output", "nan or inf", "finite")
    return outputs
