"""Squared norms of single samples' gradients of a convolution's weight, in the cheaper of two ways.

With patches a_p and cotangents g_p at P output positions, the gradient is sum_p g_p a_p^T. Few positions: by the two
Gram matrices of positions, of which the patches' is the same for all cotangents. Many: by torch's own gradient of the
weight, one sample at a time and one at once in memory, which needs no patches and knows every kind of convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GRAM_NUMBERS = 2**25
"""Most numbers that one layer's Gram matrix may have: 128 MiB in float32."""


class Convolution:
    """A use of a weight by a convolution.

    Args:
        node: Of the graph.
        inputs: Shape (n, m, channels, ...), with m images a sample.
        rows: Puts the samples of a tensor in front.
        cotangents: How many are to come.
    """

    def __init__(self, node: Any, inputs: Tensor, rows: Callable[[Tensor], Tensor], cotangents: int) -> None:
        self.node, self.inputs = node, inputs
        weight, output = node._saved_weight, node._input_metadata[0].shape
        self.shape, self.groups = tuple(weight.shape), int(node._saved_groups)
        n, m = inputs.shape[:2]
        places = prod(output[2:])
        self.forward = float(n * m) * places * weight.numel()
        if node._saved_transposed:
            self.forward = float(n * m) * prod(inputs.shape[3:]) * weight.numel()
        plain = m == 1 and not node._saved_transposed
        padded = prod(s + 2 * p for s, p in zip(inputs.shape[3:], node._saved_padding, strict=True))
        kernel = prod(self.shape[2:])
        by_patch = float(places) ** 2 * kernel * inputs.shape[2]
        by_pixel = float(padded) ** 2 * inputs.shape[2] + float(places) ** 2 * kernel * self.groups
        self.by_pixel = by_pixel < by_patch
        once, each = n * min(by_pixel, by_patch), float(n) * places**2 * output[1]
        fits = n * self.groups * (max(padded, places) if self.by_pixel else places) ** 2 <= GRAM_NUMBERS
        self.by_gram = plain and fits and once + cotangents * each < cotangents * self.forward
        self.once, self.each = (once, each) if self.by_gram else (0.0, self.forward)
        self.gram = self._gram() if self.by_gram else None

    def squares(self, cotangents: Tensor) -> Tensor:
        """Squared norms.

        Args:
            cotangents: Shape (n, m, outputs, ...).

        Returns:
            Float64, shape (n,).
        """
        if self.gram is None:
            each = [self.gradient(cotangents, i).square().sum() for i in range(len(cotangents))]
            return torch.stack(each).double()
        g = cotangents.reshape(len(cotangents), self.groups, self.shape[0] // self.groups, -1)
        return (g.transpose(2, 3) @ g).mul_(self.gram).flatten(1).sum(1).double()

    def gradients(self, cotangents: Tensor, rows: slice = slice(None)) -> Tensor:
        """Of some samples, shape (n, *weight)."""
        samples = range(len(cotangents))[rows]
        return torch.stack([self.gradient(cotangents, i) for i in samples])

    def gradient(self, cotangents: Tensor, sample: int) -> Tensor:
        """Of one sample."""
        node = self.node
        return torch.ops.aten.convolution_backward(
            cotangents[sample].contiguous(),
            self.inputs[sample],
            node._saved_weight,
            None,
            node._saved_stride,
            node._saved_padding,
            node._saved_dilation,
            node._saved_transposed,
            node._saved_output_padding,
            node._saved_groups,
            [False, True, False],
        )[1]

    def _gram(self) -> Tensor:
        """Inner products of all patches of a sample, group by group, shape (n, groups, P, P)."""
        node, x = self.node, self.inputs[:, 0]
        padding = [p for size in reversed(node._saved_padding) for p in (size, size)]
        x = F.pad(x, padding).unflatten(1, (self.groups, -1))
        out = node._input_metadata[0].shape[2:]
        steps = list(zip(self.shape[2:], node._saved_stride, node._saved_dilation, out, strict=True))
        shifts = [
            tuple(
                slice(d * at, d * at + s * (size - 1) + 1, s) for at, (_, s, d, size) in zip(offset, steps, strict=True)
            )
            for offset in product(*(range(k) for k, *_ in steps))
        ]
        if not self.by_pixel:
            patches = torch.cat([x[(..., *shift)].flatten(3) for shift in shifts], 2)
            return patches.transpose(2, 3) @ patches
        pixels = x.flatten(3)
        pairs = (pixels.transpose(2, 3) @ pixels).unflatten(2, x.shape[3:]).unflatten(-1, x.shape[3:])
        gram = pairs[(..., *shifts[0], *shifts[0])].clone()
        for shift in shifts[1:]:
            gram += pairs[(..., *shift, *shift)]
        return gram.reshape(*gram.shape[:2], prod(out), prod(out))
