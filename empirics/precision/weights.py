"""Weights kept in a narrow format: rounded in place after every step of the optimizer, to nearest or stochastically."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from empirics.precision.rounding import Rounding, round_to


@torch.no_grad()
def round_(
    tensors: Iterable[Tensor],
    mantissa: int = 7,
    exponent: int = 8,
    rounding: Rounding = "nearest",
    generator: Generator | None = None,
) -> None:
    """Round tensors in place, without a trace in the autograd graph.

    Args:
        tensors: float32 tensors, such as `model.parameters()`.
        mantissa: Explicit mantissa bits, 1 to 23.
        exponent: Exponent bits, 2 to 8.
        rounding: "nearest" or "stochastic".
        generator: Source of the noise of stochastic rounding, as in `round_to`.

    Raises:
        InputError: If a tensor is not float32 (the others are then left as they were), or as in `round_to`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.004]))
        >>> round_([weight])
        >>> weight.item()
        1.0078125
    """
    kept = list(tensors)
    rounded = [round_to(tensor, mantissa, exponent, rounding, generator) for tensor in kept]
    for tensor, values in zip(kept, rounded, strict=True):
        tensor.copy_(values)


def round_weights(
    optimizer: Optimizer,
    mantissa: int = 7,
    exponent: int = 8,
    rounding: Rounding = "nearest",
    generator: Generator | None = None,
) -> RemovableHandle:
    """Keep an optimizer's weights in a format: they are rounded now, and after every step.

    The step itself is float32 and is rounded once, as in torch's fused bf16 kernels; the optimizer's state stays
    float32.

    Args:
        optimizer: Any torch optimizer of float32 parameters.
        mantissa: Explicit mantissa bits, 1 to 23.
        exponent: Exponent bits, 2 to 8.
        rounding: "nearest" or "stochastic".
        generator: Source of the noise of stochastic rounding, as in `round_to`.

    Returns:
        A handle; `handle.remove()` ends it, and leaves the weights as they are.

    Raises:
        InputError: As in `round_`; the optimizer then has no hook, and its weights are unchanged.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> handle = round_weights(optimizer)
        >>> weight.grad = torch.tensor([0.001])
        >>> optimizer.step()
        >>> handle.remove()
        >>> weight.item()
        1.0
    """

    def round_all(*_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        round_(parameters, mantissa, exponent, rounding, generator)

    round_all()
    return optimizer.register_step_post_hook(round_all)
