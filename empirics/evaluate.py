"""What a trained model is worth: losses on held-out text, errors on clean images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from empirics.batchnorm import recomputed
from empirics.data import Images, Text
from empirics.probes.jacobian import jacobian_fro
from empirics.ranks import ALONE, Ranks

Batch = tuple[Tensor, Tensor]


Evaluation = dict[str, float | dict[str, float]]
"""Quantities; those in parts are by part."""

BLOCKS = 32
"""Consecutive held-out windows are averaged in so many blocks, each about a document or more: losses of windows of one
document move together, so the scatter of blocks, not of windows, says how sure a mean is."""
JACOBIAN_IMAGES = 200
"""Clean test images over which the Jacobian norm is averaged: its standard error is then about 1 %."""


def evaluate(
    model: nn.Module, data: Text | Images, *, visited: int = 0, batch_size: int = 256, ranks: Ranks = ALONE
) -> Evaluation:
    """Evaluate a model; its mode, buffers and gradients stay as they are.

    Args:
        model: A `GPT2` for text, a `ResNet` for images.
        data: The opened data.
        visited: Text windows that the model was trained on so far.
        batch_size: Windows or images at a time.
        ranks: Processes that share the windows and get the same result; images are evaluated by each.

    Returns:
        For text `val_loss` on held-out documents and, unless the corpus is used up, `fresh_loss` on training windows
        not yet visited (nats per token), each also by blocks of windows (`val_loss_block`, `fresh_loss_block`). For
        images, with BatchNorm statistics recomputed exactly on the training images: `test_error`, `test_loss` (nats) on
        the clean test set, `train_error` on the noisy training labels, and over clean test images the Jacobian norms
        (root mean squares) `jacobian_fro` (scale-invariant, with `jacobian_fro_stderr`), `jacobian_parameters` and
        `jacobian_inputs`, see `empirics.probes.jacobian.JacobianFro`.
    """
    if isinstance(data, Text):
        with evaluation_mode(model):
            found: Evaluation = {}
            for name, batches in (("val", data.validation(batch_size)), ("fresh", data.fresh(visited, batch_size))):
                windows = window_losses(model, batches, ranks=ranks)
                if len(windows):
                    found[f"{name}_loss"] = windows.mean().item()
                    blocks = windows.tensor_split(min(BLOCKS, len(windows)))
                    found[f"{name}_loss_block"] = {str(i): block.mean().item() for i, block in enumerate(blocks)}
            return found
    device = next(model.parameters()).device
    with evaluation_mode(model):
        copy = recomputed(model, data.train_images.to(device))
        train = list(zip(data.train_images.split(batch_size), data.train_labels.split(batch_size), strict=True))
        images = data.test_images[:JACOBIAN_IMAGES].to(device)
        by_weight = jacobian_fro(copy, images, method="exact")
        by_pixel = jacobian_fro(copy, images, wrt="inputs", method="exact")
        relative = by_weight.scale_invariant
        assert relative is not None
        return {
            "test_error": mean(copy, data.validation(batch_size), wrong),
            "test_loss": mean(copy, data.validation(batch_size), nll),
            "train_error": mean(copy, train, wrong),
            "jacobian_fro": relative.rms,
            "jacobian_fro_stderr": relative.rms_stderr,
            "jacobian_parameters": by_weight.norm.rms,
            "jacobian_inputs": by_pixel.norm.rms,
        }


def window_losses(model: nn.Module, batches: Iterable[Batch], *, ranks: Ranks = ALONE) -> Tensor:
    """Mean loss of every window.

    Args:
        model: Tokens (B, T) to logits (B, T, V).
        batches: Pairs of inputs and targets (B, T).
        ranks: Processes that share each batch, and all get its losses.

    Returns:
        Losses in nats, in order, float64 on the CPU, shape (windows,).
    """
    device = next(model.parameters()).device
    losses = [torch.empty(0, dtype=torch.float64)]
    for inputs, targets in batches:
        count, mine = len(inputs), ranks.mine(len(inputs))
        inputs, targets = (inputs, targets) if ranks.world == 1 else (inputs[mine], targets[mine])
        logits = model(inputs.to(device)).float().flatten(0, 1)
        each = nn.functional.cross_entropy(logits, targets.to(device).flatten(), reduction="none")
        losses.append(ranks.all(each.view_as(targets).double().mean(dim=1).cpu())[:count])
    return torch.cat(losses)


def mean(model: nn.Module, batches: Iterable[Batch], score: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean of a score over all predictions in some batches.

    Args:
        model: Inputs to logits, (..., classes).
        batches: Pairs of inputs and targets (...).
        score: Maps logits (N, classes) and targets (N,) to the sum of their scores.

    Returns:
        The mean.
    """
    device = next(model.parameters()).device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for inputs, targets in batches:
        logits = model(inputs.to(device)).flatten(0, -2)
        total += score(logits, targets.to(device).flatten())
        count += targets.numel()
    return total.item() / count


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies, in nats."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def wrong(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of targets that are not the likeliest class."""
    return (logits.argmax(dim=-1) != targets).sum()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
