"""A functional copy to measure on: the same weights in memory, its own mode, buffers and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from theory.errors import InputError, require

LossFn = Callable[[nn.Module, Any], Tensor]
HALF = (torch.float16, torch.bfloat16)
POLICY = "BatchNorm statistics {statistics}; dropout off"


def twin(model: nn.Module, *, statistics: str = "eval", trainable: bool = True) -> nn.Module:
    """Copy a model without copying its parameters, with dropout off.

    Args:
        model: Any module; stays as it is.
        statistics: BatchNorm's: "eval" uses the running ones, "train" those of the batch (no running one is updated,
            since the buffers are copies).
        trainable: Refuse a model without trainable parameters.

    Returns:
        The copy, whose parameters share the model's memory but not its gradients.

    Raises:
        InputError: If `statistics` is neither, a parameter is on the meta device or none is trainable, or the model
            cannot be copied.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        >>> other = twin(model)
        >>> other[0].weight.data_ptr() == model[0].weight.data_ptr(), other[1].training, model[1].training
        (True, False, True)
    """
    require(statistics in ("eval", "train"), "statistics", statistics, "'eval' or 'train'")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        require(not tensor.is_meta, f"device of {name!r}", "meta", "a device that holds values")
    if trainable and not any(p.requires_grad for p in model.parameters()):
        raise InputError(f"model = {type(model).__name__} has no trainable parameters: there must be at least one.")
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    try:
        other = copy.deepcopy(model, memo).eval()
    except RuntimeError as error:
        raise InputError(f"model = {type(model).__name__} cannot be copied: {error}") from error
    for module in other.modules():
        if statistics == "train" and isinstance(module, _BatchNorm):
            module.train()
    return other


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Gradients on, and the random number generators afterwards as before.

    Args:
        model: Says which devices' generators are at stake.
    """
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=list(devices)), explained():
        yield


@contextmanager
def explained() -> Iterator[None]:
    """Say in a sentence that a gradient was needed of something that has been overwritten.

    Raises:
        InputError: Instead of torch's RuntimeError about it.
    """
    try:
        yield
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        told = "model changes a tensor in place that its gradient needs: it must not, and could not be trained either."
        raise InputError(told) from error


def leaves(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch.

    Args:
        batch: A tensor, or lists, tuples and mappings of them; anything else holds none.
    """
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (list, tuple, Mapping)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from leaves(part)


@contextmanager
def unchanged(batch: Any) -> Iterator[None]:
    """Put the batch back, and raise, if it is changed in place within the context.

    Args:
        batch: As in `leaves`.

    Raises:
        InputError: If it was changed.
    """
    before = [(x, x._version, x.detach().clone()) for x in leaves(batch) if not x.is_inference()]
    try:
        yield
    finally:
        changed = [(x, value) for x, version, value in before if x._version != version]
        with torch.no_grad():
            for x, value in changed:
                x.detach().copy_(value)
    if changed:
        raise InputError("batch is changed in place by the model: it must stay as it is, so clone it in forward.")


def check_batch(batch: Any, field: str = "batch") -> None:
    """Refuse a batch that holds an empty tensor.

    Args:
        batch: A tensor, or lists, tuples and mappings of them; anything else passes.
        field: Its name.

    Raises:
        InputError: If a tensor in it has no elements.
    """
    if isinstance(batch, Tensor):
        require(batch.numel() > 0, field, f"a tensor of shape {tuple(batch.shape)}", "at least one example")
    elif isinstance(batch, (list, tuple, Mapping)):
        require(len(batch) > 0, field, batch, "at least one example")
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            check_batch(part, field)


def check_full_precision(model: nn.Module) -> None:
    """Refuse half-precision parameters, whose second derivatives are mostly rounding.

    Args:
        model: Any module.

    Raises:
        InputError: If a trainable parameter is float16 or bfloat16.
    """
    for name, p in model.named_parameters():
        allowed = "float32 or float64: pass a copy, as by copy.deepcopy(model).float()"
        require(not (p.requires_grad and p.dtype in HALF), f"dtype of {name!r}", p.dtype, allowed)


def check_loss(loss: Any) -> Tensor:
    """Return the loss if it is a finite scalar that depends on parameters.

    Args:
        loss: What `loss_fn` returned.

    Returns:
        The same, of shape ().

    Raises:
        InputError: If it is not.
    """
    found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    require(isinstance(loss, Tensor) and loss.numel() == 1, "loss_fn's result", found, "a scalar tensor")
    allowed = "differentiable with respect to the parameters of the model it is given"
    require(loss.requires_grad, "loss_fn's result", "a constant", allowed)
    require(bool(loss.isfinite()), "loss_fn's result", loss.item(), "finite")
    return loss.reshape(())
