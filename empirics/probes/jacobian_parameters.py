"""Squared norms of J^T v per sample and tensor, J the Jacobian of outputs in parameters: by layers, or one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from empirics.probes.jacobian_graph import (
    Skeleton,
    UnsupportedError,
    isometric_leaf,
    operations,
    parameters_behind,
    shape,
)
from empirics.probes.jacobian_layers import Outer, Use, use
from empirics.tensors import TensorView

NUMBERS = 2**24
"""Most numbers in the gradients of single samples that are formed at once, where they must be."""
FLIPS = ("TBackward0", "TransposeBackward0")


@dataclass(frozen=True)
class Read:
    """One way from a parameter into an operation."""

    number: int
    """Of the operation."""
    use: Use
    """What it does with the parameter."""
    child: Any
    """The operation whose output enters, and which output."""
    flipped: bool | None
    """Whether the parameter enters transposed; None if something else was done to it before."""


class Layers:
    """J^T v of some samples by one backward pass through the layers' outputs, never through the weights.

    Args:
        outputs: Of the samples, with their graph.
        skeleton: Of the model's graphs.
        views: Tensors to tell apart.
        cotangents: How many are to come.

    Raises:
        UnsupportedError: If there is no formula for one of the operations that take a parameter.
    """

    @torch.no_grad()
    def __init__(self, outputs: Tensor, skeleton: Skeleton, views: Sequence[TensorView], cotangents: int) -> None:
        nodes = operations(outputs)
        if tuple(node.name() for node in nodes) != skeleton.names:
            raise UnsupportedError("the operations depend on the batch")
        self.outputs, self.layouts, self.n = outputs, skeleton.layouts, len(outputs)
        self.edges = {number: GradientEdge(nodes[number], 0) for number in skeleton.layouts}
        self.columns: dict[str, list[int]] = {}
        for column, view in enumerate(views):
            self.columns.setdefault(view.parameter_name, []).append(column)
        self.views = views
        names = {view.parameter: view.parameter_name for view in views}
        self.reads: dict[str, list[Read]] = {}
        for entry in skeleton.entries:
            node = nodes[entry.node]
            child, output = node.next_functions[entry.position]
            size, layout = shape(child, output), skeleton.layouts[entry.node]
            used = use(node, entry.position, layout, self.n, size, cotangents)
            leaf, path = isometric_leaf(child)
            moves = [step.name() in FLIPS and len(shape(step)) == 2 for step in path]
            flipped = len(path) % 2 == 1 if leaf is not None and all(moves) else None
            for parameter in [leaf] if leaf is not None else parameters_behind(child):
                read = Read(entry.node, used, (child, output), flipped)
                self.reads.setdefault(names[parameter], []).append(read)
        self.isometric = {name: len(reads) == 1 and self._moved(reads[0]) for name, reads in self.reads.items()}

    @property
    def forward(self) -> float:
        """Multiplications of the forward pass."""
        return sum(read.use.forward for reads in self.reads.values() for read in reads)

    @property
    def cost(self) -> tuple[float, float]:
        """Multiplications for norms: once, and for each cotangent."""
        reads = [read.use for reads in self.reads.values() for read in reads]
        each = sum(min(outer_cost([r])) if isinstance(r, Outer) else r.each for r in reads)
        return sum(0.0 if isinstance(r, Outer) else r.once for r in reads), each

    @torch.no_grad()
    def squares(self, cotangents: Tensor) -> Tensor:
        """Squared norms.

        Args:
            cotangents: v, shaped like the outputs.

        Returns:
            Float64, shape (n, views).
        """
        edges = list(self.edges.values())
        found = torch.autograd.grad(self.outputs, edges, cotangents, retain_graph=True, allow_unused=True)
        gradients = {
            number: self.layouts[number].rows(g, self.n)
            for number, g in zip(self.edges, found, strict=True)
            if g is not None
        }
        result = torch.zeros(self.n, len(self.views), dtype=torch.float64, device=self.outputs.device)
        for name, reads in self.reads.items():
            pairs = [(read, gradients[read.number]) for read in reads if read.number in gradients]
            if pairs:
                columns = self.columns[name]
                views = [self.views[column] for column in columns]
                for column, values in zip(columns, self._parameter(name, views, pairs), strict=True):
                    result[:, column] = values
        return result

    def _parameter(
        self, name: str, views: Sequence[TensorView], pairs: Sequence[tuple[Read, Tensor]]
    ) -> Iterable[Tensor]:
        """Squared norms of one parameter's gradients, view by view."""
        outers = [read.use for read, _ in pairs if isinstance(read.use, Outer) and read.flipped is not None]
        if len(outers) == len(pairs):
            factors = [
                (right, outer.left) if read.flipped else (outer.left, right)
                for (read, g), outer in zip(pairs, outers, strict=True)
                for right in [outer.right(g)]
            ]
            cut = [[tuple(part(f, view, at) for at, f in enumerate(pair)) for pair in factors] for view in views]
            by_gram, direct = outer_cost(outers)
            sliced = any(
                f.dim() == 2 and view.dim == at for pair in factors for at, f in enumerate(pair) for view in views
            )
            if by_gram < direct and not sliced:
                return [by_positions(each) for each in cut]
        elif len(views) == 1 and self.isometric[name]:
            ((read, g),) = pairs
            return [read.use.squares(g)] if not isinstance(read.use, Outer) else [outer_squares(read.use, g)]
        return self._formed(views, pairs)

    def _formed(self, views: Sequence[TensorView], pairs: Sequence[tuple[Read, Tensor]]) -> Iterable[Tensor]:
        """The same from gradients of a few samples at a time, summed over all uses."""
        parameter = views[0].parameter
        few = max(1, NUMBERS // parameter.numel())
        found: list[list[Tensor]] = [[] for _ in views]
        for start in range(0, self.n, few):
            rows, total = slice(start, start + few), None
            for read, g in pairs:
                gradients = read.use.gradients(g, rows)
                pulled = self._pulled(read, gradients, parameter)
                total = pulled if total is None else total + pulled
            for column, view in zip(found, views, strict=True):
                assert total is not None
                dim = None if view.dim is None else view.dim + 1
                piece = total if dim is None else total.narrow(dim, view.start, view.stop - view.start)
                column.append(piece.flatten(1).square().sum(1, dtype=torch.float64))
        return [torch.cat(column) for column in found]

    @staticmethod
    def _pulled(read: Read, gradients: Tensor, parameter: nn.Parameter) -> Tensor:
        """From gradients of what entered the operation to those of the parameter."""
        if read.flipped is not None:
            return gradients.transpose(1, 2) if read.flipped else gradients.view(-1, *parameter.shape)
        edge = GradientEdge(*read.child)
        gradients = gradients.view(-1, *shape(*read.child))
        (pulled,) = torch.autograd.grad([edge], [parameter], [gradients], retain_graph=True, is_grads_batched=True)
        return pulled

    @staticmethod
    def _moved(read: Read) -> bool:
        return isometric_leaf(read.child[0])[0] is not None


def part(factor: Tensor, view: TensorView, side: int) -> Tensor:
    """The columns of one factor of a matrix that belong to a view of it."""
    return factor.narrow(-1, view.start, view.stop - view.start) if view.dim == side and factor.dim() == 3 else factor


def outer_cost(outers: Sequence[Outer]) -> tuple[float, float]:
    """Multiplications for squared norms of a sum of outer products: by positions, and by forming it."""
    n, positions = len(outers[0].left), sum(outer.positions for outer in outers)
    width = outers[0].inputs * any(outer.left.dim() == 3 for outer in outers) + outers[0].outputs
    direct = n * sum(outer.positions for outer in outers) * outers[0].inputs * outers[0].outputs
    return float(n) * positions**2 * width, float(direct)


def outer_squares(outer: Outer, cotangents: Tensor) -> Tensor:
    """Squared norms of one use, the cheaper way, shape (n,)."""
    by_gram, direct = outer_cost([outer])
    if by_gram < direct:
        return by_positions([(outer.left, outer.right(cotangents))])
    few = max(1, NUMBERS // (outer.inputs * outer.outputs))
    pieces = [outer.gradients(cotangents, slice(start, start + few)) for start in range(0, len(outer.left), few)]
    return torch.cat([piece.flatten(1).square().sum(1, dtype=torch.float64) for piece in pieces])


def by_positions(factors: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """||sum_t a_t b_t^T||^2 of every sample, t over the positions of all pairs of factors.

    Args:
        factors: Pairs of (n, T, inputs) and (n, T, outputs); one of them may be rows looked up, int64, (n, T).

    Returns:
        Float64, shape (n,).

    Example:
        >>> by_positions([(torch.ones(1, 2, 3), torch.ones(1, 2, 4))]).item()    # all entries 2
        48.0
    """
    total = torch.zeros(len(factors[0][0]), dtype=torch.float64, device=factors[0][0].device)
    for (i, one), (j, other) in product(enumerate(factors), repeat=2):
        if i <= j:
            grams = inner(one[0], other[0]) * inner(one[1], other[1])
            total += (1 if i == j else 2) * grams.flatten(1).sum(1, dtype=torch.float64)
    return total


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of rows, (n, S, T), where int64 stands for rows of the identity."""
    if one.dim() == other.dim() == 3:
        return one @ other.transpose(1, 2)
    if one.dim() == other.dim() == 2:
        return one.unsqueeze(2) == other.unsqueeze(1)
    if one.dim() == 3:
        return inner(other, one).transpose(1, 2)
    return other.transpose(1, 2).gather(1, one.unsqueeze(2).expand(-1, -1, other.shape[1]))
