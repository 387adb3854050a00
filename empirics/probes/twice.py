# pyright: reportPrivateImportUsage=false
"""Operations whose second derivative torch lacks or gets wrong, replaced by ones for which it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by torch's math kernel, and weight normalisation by its formula.

    Fused attention has no second derivative. That of torch's fused weight_norm takes the norms of the weights for
    constants: no error, but a Hessian that is not symmetric (torch 2.13, `torch.autograd.gradgradcheck` fails).

    Example:
        >>> layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))
        >>> with twice_differentiable():
        ...     print("WeightNorm" in layer.weight.grad_fn.name())
        False
    """
    with sdpa_kernel(SDPBackend.MATH), _WeightNorm():
        yield


class _WeightNorm(TorchFunctionMode):
    """v g / ||v||, from operations that can be differentiated twice."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch._weight_norm:
            return func(*args, **kwargs or {})
        return _weight_norm(*args, **kwargs or {})


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [axis for axis in range(v.dim()) if axis != dim % v.dim()] if dim != -1 else list(range(v.dim()))
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))
