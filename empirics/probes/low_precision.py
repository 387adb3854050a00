"""Numbers that tell early of low-precision trouble: what a bfloat16 sum loses, and the largest attention logit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from empirics.models.gpt2 import Attention
from empirics.probes.products import wide

SCORES = 2**24
"""At most so many attention logits are held at a time, or those of one sequence if they are more."""


def rms(x: Tensor) -> Tensor:
    """Root mean square over all elements, in float32 or better.

    Args:
        x: Any shape.

    Returns:
        Scalar on its device.
    """
    return torch.linalg.vector_norm(x, dtype=wide(x)) / math.sqrt(x.numel())


def branch_lost(stream: Tensor, branch: Tensor) -> Tensor:
    """RMS error of a branch added to a stream in bfloat16, relative to the branch.

    Args:
        stream: x, any shape and floating type.
        branch: f, likewise.

    Returns:
        Scalar ||bf16(x + f) - x - f|| / ||f|| with x and f rounded to bfloat16: 0 exact, 1 all lost; nan if f is 0.

    Example:
        >>> x = torch.ones(4)  # bfloat16 has 1, 1 + 2^-7, 1 + 2^-6, ...: half of a spacing is lost, more is rounded up
        >>> [branch_lost(x, torch.full((4,), f)).item() for f in (2**-6, 2**-8, 3 * 2**-9)]
        [0.0, 1.0, 0.3333333432674408]
    """
    x, f = stream.bfloat16(), branch.bfloat16()
    error = (x + f).float() - x.float() - f.float()
    return torch.linalg.vector_norm(error) / torch.linalg.vector_norm(f, dtype=torch.float32)


def logit_max(attn: nn.Module, qkv: Tensor) -> Tensor:
    """The largest causal attention logit.

    Args:
        attn: GPT-2's attention module, this package's or Hugging Face's.
        qkv: Output of its c_attn, shape (B, T, 3D).

    Returns:
        Scalar on its device; nan if any logit is.
    """
    width = qkv.size(-1) // 3
    q, k = qkv.narrow(-1, 0, width), qkv.narrow(-1, width, width)
    heads = attn.config.n_head if isinstance(attn, Attention) else int(getattr(attn, "num_heads"))  # noqa: B009
    scale = 1 / math.sqrt(width // heads)
    if isinstance(attn, Attention):
        q, k = attn.normalise(q), attn.normalise(k)
    else:  # Hugging Face's options
        scale = scale if getattr(attn, "scale_attn_weights", True) else 1.0
        scale /= getattr(attn, "layer_idx", 0) + 1 if getattr(attn, "scale_attn_by_inverse_layer_idx", False) else 1
    q, k = (x.to(wide(x)).unflatten(-1, (heads, width // heads)).transpose(1, 2) for x in (q, k))
    tokens = q.size(2)
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu_(1)
    at_a_time = max(SCORES // (heads * tokens * tokens), 1)
    largest = [
        (some_q @ some_k.transpose(2, 3)).masked_fill_(future, -math.inf).amax()
        for some_q, some_k in zip(q.split(at_a_time), k.split(at_a_time), strict=True)
    ]
    return torch.stack(largest).amax() * scale
