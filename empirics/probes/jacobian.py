"""Norm of the network's Jacobian: how strongly the logits react to weights and inputs, exact over the outputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from theory.errors import require, whole


@dataclass(frozen=True)
class JacobianFro:
    """Root mean squares over images of Frobenius norms of the logits' Jacobian, each with its standard error.

    The raw parameter norm and the input norm follow the norms of the weights, so they can rise where the function
    becomes simpler; the scale-invariant one is the norm with respect to relative changes of each tensor.
    """

    scale_invariant: float
    """sqrt(mean_i sum_l ||w_l||^2 ||J_l,i||^2) over trainable tensors l; in logits."""
    parameters: float
    """sqrt(mean_i sum_l ||J_l,i||^2); in logits per unit of weight."""
    inputs: float
    """sqrt(mean_i ||d logits_i / d image_i||^2); in logits per unit of pixel."""
    scale_invariant_stderr: float
    """Standard error of `scale_invariant` over images; nan for one image."""
    parameters_stderr: float
    """Standard error of `parameters`."""
    inputs_stderr: float
    """Standard error of `inputs`."""
    n: int
    """Number of images."""


def jacobian_fro(model: nn.Module, images: Tensor, *, batch_size: int = 50) -> JacobianFro:
    """Measure ||J||_F per image, one vector-Jacobian product per output, with BatchNorm's running statistics (`eval`).

    Works on a copy: the model's mode, buffers, gradients and the random number generators stay as they are. Give it
    `empirics.batchnorm.recomputed(model, train_images)` if the running statistics may be stale.

    Args:
        model: Maps images (N, ...) to logits (N, C).
        images: The images, shape (N, ...), on the model's device.
        batch_size: Images at a time; memory is batch_size * C * (number of parameters) numbers.

    Returns:
        Norms and standard errors.

    Raises:
        InputError: If there is no image, or the model's output is not (N, C).

    Example:
        >>> linear = nn.Linear(2, 3, bias=False)  # J_w = x for each output, J_x = w
        >>> round(jacobian_fro(linear, torch.ones(4, 2)).parameters ** 2, 3)
        6.0
    """
    require(len(images) > 0, "images", tuple(images.shape), "at least one image")
    whole("batch_size", batch_size, low=1)
    frozen = copy.deepcopy(model).eval()
    weights = {name: p.detach() for name, p in frozen.named_parameters() if p.requires_grad}
    frozen.requires_grad_(False)
    with torch.no_grad():
        shape = frozen(images[:1]).shape
    require(len(shape) == 2, "model", f"a map to outputs of shape {tuple(shape)}", "a map from images to logits (N, C)")
    one_hot = torch.eye(shape[1], device=images.device, dtype=images.dtype)
    squared_norms = {name: w.double().square().sum() for name, w in weights.items()}

    def logits(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(frozen, weights, (image[None],))[0]

    def squares(image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        pullback = vjp(logits, weights, image)[1]

        def row(output: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            by_weight, by_pixel = pullback(output)
            return {name: g.square().sum() for name, g in by_weight.items()}, by_pixel.square().sum()

        by_weight, by_pixel = vmap(row)(one_hot)
        return {name: s.sum() for name, s in by_weight.items()}, by_pixel.sum()

    by_weight, by_pixel = vmap(squares, chunk_size=batch_size)(images.detach())
    zero = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    relative = sum((squared_norms[name] * s.double() for name, s in by_weight.items()), zero)
    raw = sum((s.double() for s in by_weight.values()), zero)
    rms = [_rms(samples) for samples in (relative, raw, by_pixel.double())]
    return JacobianFro(*(value for value, _ in rms), *(stderr for _, stderr in rms), n=len(images))


def _rms(squares: Tensor) -> tuple[float, float]:
    """sqrt(mean) and, by the delta method, its standard error."""
    value = squares.mean().sqrt().item()
    stderr = squares.std().item() / len(squares) ** 0.5 if len(squares) > 1 else float("nan")
    return value, stderr / (2 * value) if value > 0 else stderr
