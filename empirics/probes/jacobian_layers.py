"""Squared norms of single samples' gradients of a layer, from its inputs and the cotangents of its outputs.

A matrix that maps a_t to outputs with cotangents g_t, at T positions, has the gradient sum_t a_t g_t^T, whose squared
norm is sum_{s,t} (a_s . a_t)(g_s . g_t): T^2 (inputs + outputs) operations instead of T * inputs * outputs, and no
matrix is ever formed (Goodfellow, arXiv 1510.01799, for T = 1; Rochette et al., arXiv 1912.06015). The same holds for
a matrix that is used twice, also once as a table and once as a matrix, with the positions of both uses in one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from empirics.probes.jacobian_conv import Convolution
from empirics.probes.jacobian_graph import Layout, UnsupportedError


@dataclass(frozen=True)
class Full:
    """A use of a small parameter, whose gradients of all samples are formed at once."""

    gradient: Callable[[Tensor], Tensor]
    """From cotangents (n, ...) to gradients (n, ...) that only remain to be summed over what was broadcast."""
    shape: tuple[int, ...]
    """Of the parameter as it is used."""
    broadcast: tuple[int, ...]
    """That shape as it is broadcast against a sample's outputs, whose last axes it has."""
    forward = each = once = 0.0

    def gradients(self, cotangents: Tensor, rows: slice = slice(None)) -> Tensor:
        """Of some samples, shape (n, *shape)."""
        return summed(self.gradient(cotangents), self.broadcast)[rows].reshape(-1, *self.shape)

    def squares(self, cotangents: Tensor) -> Tensor:
        """Squared norms, float64, shape (n,)."""
        return self.gradients(cotangents).flatten(1).square().sum(1, dtype=torch.float64)


@dataclass(frozen=True)
class Outer:
    """A use of a matrix, (inputs, outputs): the gradient of a sample is a sum of outer products over positions."""

    left: Tensor
    """Inputs, shape (n, T, inputs), or the table's rows that were looked up, int64, shape (n, T)."""
    inputs: int
    """Rows of the matrix."""
    outputs: int
    """Columns of the matrix."""
    scale: Tensor | float = 1.0
    """Factor of the cotangents, broadcast against (n, T, 1)."""

    @property
    def positions(self) -> int:
        """T."""
        return self.left.shape[1]

    @property
    def forward(self) -> float:
        """Multiplications in the forward pass."""
        return 0.0 if self.left.dim() == 2 else float(len(self.left)) * self.positions * self.inputs * self.outputs

    def right(self, cotangents: Tensor) -> Tensor:
        """The other factor, shape (n, T, outputs)."""
        return cotangents.reshape(len(cotangents), -1, self.outputs) * self.scale

    def gradients(self, cotangents: Tensor, rows: slice = slice(None)) -> Tensor:
        """Of some samples, shape (n, inputs, outputs)."""
        right, left = self.right(cotangents[rows]), self.left[rows]
        if left.dim() == 3:
            return left.transpose(1, 2) @ right
        gradients = right.new_zeros(len(left), self.inputs, self.outputs)
        return gradients.scatter_add_(1, left.unsqueeze(2).expand_as(right), right)


Use = Full | Outer | Convolution


def summed(gradients: Tensor, broadcast: Sequence[int]) -> Tensor:
    """Undo a broadcast or a repetition, sample by sample.

    Args:
        gradients: Shape (n, ...).
        broadcast: Shape of the last axes before it.

    Returns:
        Shape (n, 1, ..., *broadcast).

    Example:
        >>> summed(torch.ones(2, 3, 4), (1,)).flatten().tolist()
        [12.0, 12.0]
    """
    target = [1] * (gradients.dim() - 1 - len(broadcast)) + list(broadcast)
    for axis, size in enumerate(target, start=1):
        if gradients.shape[axis] != size:
            gradients = gradients.unflatten(axis, (-1, size)).sum(axis)
    return gradients


def use(node: Any, position: int, layout: Layout, n: int, shape: tuple[int, ...], cotangents: int) -> Use:
    """How one operation used a parameter.

    Args:
        node: The operation.
        position: Of the parameter among its inputs.
        layout: Of its output.
        n: Number of samples.
        shape: Of the parameter as it enters.
        cotangents: How many are to come: what is computed once pays off if there are many.

    Returns:
        The formula for its gradients.

    Raises:
        UnsupportedError: If there is none.
    """
    try:
        return _use(node, position, lambda x: layout.rows(x, n), layout.axis, shape, cotangents)
    except AttributeError as error:  # another version of torch
        raise UnsupportedError(f"{node.name()} keeps something else than expected: {error}") from error


def _use(
    node: Any, position: int, rows: Callable[[Tensor], Tensor], axis: int, shape: tuple[int, ...], cotangents: int
) -> Use:
    name = node.name().partition("Backward")[0]

    def full(gradient: Callable[[Tensor], Tensor], broadcast: tuple[int, ...] = shape) -> Full:
        return Full(gradient, shape, broadcast)

    def flat(x: Tensor) -> Tensor:
        return rows(x).flatten(1, -2)

    match name, position:
        case "Addmm", 0:
            return full(lambda g: g * node._saved_beta)
        case "Addmm", 2:
            return Outer(flat(node._saved_mat1), *shape, scale=node._saved_alpha)
        case "Mm", 1:
            return Outer(flat(node._saved_self), *shape)
        case "Bmm", 1 if shape[0] == 1:
            return Outer(flat(node._saved_self), *shape[1:])
        case "Embedding", 0 if not node._saved_scale_grad_by_freq:
            looked_up = rows(node._saved_indices).flatten(1)
            counts = (looked_up != node._saved_padding_idx).unsqueeze(2)
            return Outer(looked_up, *shape, scale=counts)
        case "Convolution", 1 if axis == 0:
            return Convolution(node, rows(node._saved_input), rows, cotangents)
        case "Convolution", 2:
            return full(lambda g: g, channels(shape, node._saved_input.dim()))
        case (("NativeBatchNorm" | "CudnnBatchNorm" | "MiopenBatchNorm" | "NativeGroupNorm"), (1 | 2)):
            return full(affine(name, node, position, rows), channels(shape, node._saved_input.dim()))
        case (("NativeLayerNorm" | "FusedRmsNorm"), (1 | 2)):
            return full(affine(name, node, position, rows))
        case (("Add" | "Expand" | "Repeat"), 0):
            return full(lambda g: g)
        case (("Add" | "Sub"), 1):
            return full(lambda g: g * (node._saved_alpha if name == "Add" else -node._saved_alpha))
        case "Sub", 0:
            return full(lambda g: g)
        case "Mul", (0 | 1):
            other = node._saved_self if position else node._saved_other
            size = node._input_metadata[0].shape
            return full(lambda g: g * rows(other.expand(size)))
        case "PreluKernel", 1:
            x = node._saved_self
            return full(lambda g: g * rows(x.clamp(max=0)))
    raise UnsupportedError(f"no formula for input {position} of {node.name()}")


def channels(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """Shape of a vector over the second of so many axes, as it broadcasts."""
    return (prod(shape), *[1] * (dim - 2))


def affine(name: str, node: Any, position: int, rows: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Gradients of a normalisation's gain (position 1) or bias, before they are summed over positions."""
    if position == 2:
        return lambda g: g
    x = node._saved_input
    if name == "NativeLayerNorm":
        shift, scale = node._saved_result1, node._saved_result2
    elif name == "FusedRmsNorm":
        shift, scale = 0.0, node._saved_result1
    elif name == "NativeGroupNorm":
        groups = (*node._saved_result1.shape, *[1] * (x.dim() - 1))
        shift, scale = node._saved_result1.view(groups), node._saved_result2.view(groups)
        return lambda g: g * rows(((x.unflatten(1, (groups[1], -1)) - shift) * scale).flatten(1, 2))
    else:
        if node._saved_training or node._saved_running_mean is None:
            raise UnsupportedError("BatchNorm with the batch's statistics", coupled=True)
        eps = node._saved_eps if name == "NativeBatchNorm" else node._saved_epsilon
        view = channels(tuple(node._saved_running_mean.shape), x.dim())
        shift, scale = node._saved_running_mean.view(view), (node._saved_running_var + eps).rsqrt().view(view)
    return lambda g: g * rows((x - shift) * scale)
