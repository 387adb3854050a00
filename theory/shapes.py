"""Parameter shapes and initial norms of known architectures, for predictions that need no torch and no model."""

from __future__ import annotations

import math

from theory.errors import InputError
from theory.recipe import Group

GPT2_SIZES = {
    "124m": (12, 768),
    "350m": (24, 1024),
    "774m": (36, 1280),
    "1558m": (48, 1600),
}
"""Layers and width by name."""


def gpt2(
    size: str = "124m", *, bias: bool = True, split_qkv: bool = False, vocab_size: int = 50_257, block_size: int = 1_024
) -> tuple[Group, ...]:
    """Tensors of a GPT-2 with tied head, initialised as nanoGPT does (0.02, residual projections 0.02/sqrt(2 layers)).

    Matrices and embeddings are decayed, gains and biases are not (nanoGPT's rule). None is marked scale-invariant:
    without normalised queries and keys none of them is exactly.

    Args:
        size: "124m", "350m", "774m" or "1558m".
        bias: With biases, as in OpenAI's GPT-2 (148 tensors at 124m), or without.
        split_qkv: Query, key and value as three matrices instead of the fused parameter.
        vocab_size: Rows of the token embedding.
        block_size: Rows of the position embedding.

    Returns:
        One group per tensor.

    Raises:
        InputError: If the size is unknown.

    Example:
        >>> len(gpt2("124m"))
        148
    """
    if size not in GPT2_SIZES:
        raise InputError(f"size = {size!r} is not allowed: it must be one of {', '.join(GPT2_SIZES)}.")
    layers, d = GPT2_SIZES[size]
    residual = 0.02 / math.sqrt(2 * layers)

    def linear(name: str, rows: int, columns: int, std: float = 0.02) -> list[Group]:
        weight = Group(f"{name}.weight", (rows, columns), norm0=std * math.sqrt(rows * columns))
        return [weight, Group(f"{name}.bias", (rows,), decayed=False, norm0=0.0)] if bias else [weight]

    def norm(name: str) -> list[Group]:
        gain = Group(f"{name}.weight", (d,), decayed=False, norm0=math.sqrt(d))
        return [gain, Group(f"{name}.bias", (d,), decayed=False, norm0=0.0)] if bias else [gain]

    def fused(name: str) -> list[Group]:
        if not split_qkv:
            return linear(name, 3 * d, d)
        whole = linear(name, d, d)
        return [
            Group(f"{group.name}.{part}", group.shape, decayed=group.decayed, norm0=group.norm0)
            for group in whole
            for part in "qkv"
        ]

    groups = [
        Group("transformer.wte.weight", (vocab_size, d), norm0=0.02 * math.sqrt(vocab_size * d)),
        Group("transformer.wpe.weight", (block_size, d), norm0=0.02 * math.sqrt(block_size * d)),
    ]
    for layer in range(layers):
        at = f"transformer.h.{layer}"
        groups += norm(f"{at}.ln_1") + fused(f"{at}.attn.c_attn") + linear(f"{at}.attn.c_proj", d, d, residual)
        groups += (
            norm(f"{at}.ln_2") + linear(f"{at}.mlp.c_fc", 4 * d, d) + linear(f"{at}.mlp.c_proj", d, 4 * d, residual)
        )
    return (*groups, *norm("transformer.ln_f"))


def resnet18(num_classes: int = 10) -> tuple[Group, ...]:
    """Tensors of a CIFAR-style BatchNorm ResNet-18 with PyTorch's default (uniform fan-in) initialisation.

    Convolutions followed by BatchNorm are scale-invariant per output channel, hence also per tensor.

    Args:
        num_classes: Rows of the head.

    Returns:
        One group per tensor; all are decayed, as torch.optim.SGD does by default.

    Example:
        >>> len(resnet18())
        62
    """
    groups: list[Group] = []

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        # U(-b, b) with b = 1/sqrt(fan_in) has variance 1/(3 fan_in)
        groups.append(
            Group(f"{name}.weight", (out, into, kernel, kernel), scale_invariant="row", norm0=math.sqrt(out / 3))
        )

    def batchnorm(name: str, width: int) -> None:
        groups.append(Group(f"{name}.weight", (width,), norm0=math.sqrt(width)))
        groups.append(Group(f"{name}.bias", (width,), norm0=0.0))

    conv("conv1", 64, 3, 3)
    batchnorm("bn1", 64)
    into = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            at = f"layer{stage}.{block}"
            conv(f"{at}.conv1", width, into, 3)
            batchnorm(f"{at}.bn1", width)
            conv(f"{at}.conv2", width, width, 3)
            batchnorm(f"{at}.bn2", width)
            if into != width:
                conv(f"{at}.shortcut.0", width, into, 1)
                batchnorm(f"{at}.shortcut.1", width)
            into = width
    head = math.sqrt(num_classes / 3)
    groups += [
        Group("fc.weight", (num_classes, 512), norm0=head),
        Group("fc.bias", (num_classes,), norm0=head / math.sqrt(512)),
    ]
    return tuple(groups)
