# pyright: reportPrivateImportUsage=false
"""Emulated autocast: products in the narrow format; residual stream and normalisations in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from empirics.precision.emulation import IN_PLACE, IN_PLACE_ADDS, PRODUCTS, REFUSED, emulate, named
from theory.errors import InputError

ATTENTION = F.scaled_dot_product_attention
POINTWISE = named("softmax gelu silu")


class emulate_autocast(emulate):
    """Compute as CUDA autocast does in a narrow format: only products, attention and what follows them are rounded.

    Operands and results of matrix products, attention logits, softmax and GELU are rounded, forward and backward;
    attention is computed unfused, so that logits and probabilities are rounded too. Residual adds, normalisations, the
    loss and the weights stay float32, as they do under autocast. The low-precision figures use it: what `emulate`
    rounds besides, the residual stream, fails at far more mantissa bits.

    Args:
        mantissa: Explicit mantissa bits, 1 to 23.
        exponent: Exponent bits, 2 to 8.
        rounding: "nearest" or "stochastic".
        generator: Source of the noise of stochastic rounding.

    Raises:
        InputError: As `emulate`.

    Source: which operations autocast runs in low precision, PyTorch's documentation of torch.amp.

    Example:
        >>> x = torch.tensor([1.3])
        >>> with emulate_autocast(mantissa=1):
        ...     (x + x).item(), (x @ x).item()
        (2.5999999046325684, 2.0)
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        if func is ATTENTION:
            return self._attention(*args, **kwargs)
        if func in PRODUCTS or func in POINTWISE:
            return self._rounded(func, args, kwargs)
        if func in IN_PLACE and func not in IN_PLACE_ADDS and torch.is_grad_enabled():
            return args[0].copy_(self._rounded(IN_PLACE[func], args, kwargs))
        if func in REFUSED:
            raise InputError(f"{func.__name__} cannot be emulated: build the layer from linear maps and attention.")
        return func(*args, **kwargs)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The reference computation of attention, each of its results rounded."""
        if enable_gqa:
            raise InputError("Grouped-query attention cannot be emulated under autocast: repeat keys and values.")
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        logits = self._rounded(torch.matmul, (query, key.transpose(-2, -1)), {}) * factor
        if is_causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(later, -torch.inf)
        if attn_mask is not None:
            boolean = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -torch.inf) if boolean else logits + attn_mask
        weights = self._rounded(torch.softmax, (logits, -1), {})
        if dropout_p > 0:
            weights = F.dropout(weights, dropout_p)
        return self._rounded(torch.matmul, (weights, value), {})
