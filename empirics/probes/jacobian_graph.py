"""Which operations of a forward pass took which parameter, and where the samples lie in their outputs.

Both are read off the graph of one forward pass, so that any code that calls torch's operations will do: no hooks, no
list of modules. A parameter enters where an operation whose output has a batch axis takes something that has none and
depends on it. The batch axis is the one that differs between two batch sizes. How samples lie along it, and that none
acts on another, is tested on two of them by sending back a cotangent of one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

MOVES = ("T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Alias", "Clone", "Unsqueeze", "Squeeze")
ISOMETRIC = frozenset(f"{name}Backward{i}" for name in (*MOVES, "Slice", "Select") for i in range(3))
"""Operations that only move numbers about: the norm of a gradient passes through them unchanged."""


class UnsupportedError(Exception):
    """Why the layers' formulas do not apply to a model; its text is the reason."""

    def __init__(self, reason: str, *, coupled: bool = False) -> None:
        super().__init__(reason)
        self.coupled = coupled  # samples act on each other, or may do so


@dataclass(frozen=True)
class Layout:
    """Where samples lie in a tensor."""

    axis: int
    """The axis with the batch in it."""
    outer: bool
    """Whether a sample's entries are next to each other along it, or a batch length apart."""

    def rows(self, tensor: Tensor, n: int) -> Tensor:
        """Samples in front.

        Args:
            tensor: With the batch along `axis`, alone or together with m positions.
            n: Number of samples.

        Returns:
            Shape (n, ...): of each sample what a batch of one would be, with m along `axis`.
        """
        m = tensor.shape[self.axis] // n
        cut = tensor.unflatten(self.axis, (n, m) if self.outer else (m, n))
        return cut.movedim(self.axis if self.outer else self.axis + 1, 0)


@dataclass(frozen=True)
class Entry:
    """A place where a parameter meets the samples."""

    node: int
    """The operation, by its number in the graph."""
    position: int
    """Which of its inputs."""


@dataclass(frozen=True)
class Skeleton:
    """What all graphs of a model have in common, whatever the batch size."""

    names: tuple[str, ...]
    """Of the operations."""
    layouts: dict[int, Layout]
    """Of the outputs of the operations that parameters enter."""
    entries: tuple[Entry, ...]
    """Where parameters enter."""


def operations(outputs: Tensor) -> list[Any]:
    """All operations behind the outputs, in an order that only depends on the graph."""
    stack, seen, found = [outputs.grad_fn], set[Node](), []
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.append(node)
            stack.extend(child for child, _ in node.next_functions)
    return found


def shape(node: Any, output: int = 0) -> tuple[int, ...]:
    """Of an operation's output."""
    return tuple(node._input_metadata[output].shape)


def is_leaf(node: Node) -> bool:
    """Whether it stands for a parameter."""
    return node.name() == "torch::autograd::AccumulateGrad"


def skeleton(outputs: Tensor, trial: Tensor) -> Skeleton:
    """Compare the graphs of two batches of different size.

    Args:
        outputs: Of the one.
        trial: Of the other, of a few samples; cotangents are sent back from it.

    Returns:
        What they have in common.

    Raises:
        UnsupportedError: If they differ in more than a batch axis, or samples act on each other.
    """
    large, small = operations(outputs), operations(trial)
    names = tuple(node.name() for node in large)
    if names != tuple(node.name() for node in small):
        raise UnsupportedError("the operations depend on the batch size", coupled=True)
    n, few = len(outputs), len(trial)
    numbers = {node: number for number, node in enumerate(large)}
    axes = {
        number: batch_axis(shape(a), shape(b), n, few) for number, (a, b) in enumerate(zip(large, small, strict=True))
    }
    pure: set[int] = set()

    def leads_to_parameters(node: Node) -> None:
        """Everything behind a tensor without a batch axis must be without one too."""
        number = numbers[node]
        if number in pure:
            return
        if axes[number] is not None:
            raise UnsupportedError(f"{node.name()} acts across samples", coupled=True)
        pure.add(number)
        for child, _ in node.next_functions:
            if child is not None:
                leads_to_parameters(child)

    entries = []
    for number, node in enumerate(large):
        if axes[number] is not None:
            for position, (child, _) in enumerate(node.next_functions):
                if child is not None and axes[numbers[child]] is None:
                    leads_to_parameters(child)
                    entries.append(Entry(number, position))
    used = sorted({entry.node for entry in entries})
    for number in used:
        if axes[number] == -1:
            raise UnsupportedError(f"the output of {names[number]} has no plain batch axis")
    edges = [GradientEdge(small[number], 0) for number in used]
    chosen = layouts(trial, edges, [axes[number] or 0 for number in used])
    return Skeleton(names, dict(zip(used, chosen, strict=True)), tuple(entries))


def batch_axis(large: Sequence[int], small: Sequence[int], n: int, few: int) -> int | None:
    """The axis along which two shapes differ as n from few; None if they are equal, -1 if they differ otherwise.

    Args:
        large: Shape of an output for n samples.
        small: Shape of the same output for few.
        n: Number of samples.
        few: Another number of them.

    Example:
        >>> batch_axis((6, 8), (4, 8), 3, 2)
        0
    """
    if tuple(large) == tuple(small):
        return None
    differ = [axis for axis, (a, b) in enumerate(zip(large, small, strict=False)) if a != b]
    if len(large) != len(small) or len(differ) > 1 or large[differ[0]] * few != small[differ[0]] * n:
        return -1
    return differ[0]


def layouts(outputs: Tensor, edges: Sequence[GradientEdge], axes: Sequence[int]) -> list[Layout]:
    """How samples lie, from cotangents of one sample at a time.

    Args:
        outputs: Of a few samples.
        edges: Outputs of operations.
        axes: Where the batch is in each.

    Raises:
        UnsupportedError: If a sample's outputs depend on another.
    """
    generator = torch.Generator(outputs.device).manual_seed(0)
    few = len(outputs)
    passed = [{True, False} for _ in edges]
    for sample in range(few):
        cotangent = torch.zeros_like(outputs)
        cotangent[sample] = torch.randn(outputs[sample].shape, generator=generator, device=outputs.device)
        found = torch.autograd.grad(outputs, edges, cotangent, retain_graph=True, allow_unused=True)
        others = [other for other in range(few) if other != sample]
        for choice, axis, g in zip(passed, axes, found, strict=True):
            if g is not None:
                leaks = {outer for outer in choice if Layout(axis, outer).rows(g, few)[others].any()}
                choice -= leaks
    if not all(passed):
        raise UnsupportedError("samples act on each other", coupled=True)
    return [Layout(axis, max(choice)) for axis, choice in zip(axes, passed, strict=True)]


def isometric_leaf(node: Any) -> tuple[nn.Parameter | None, list[Any]]:
    """Follow operations that only move numbers about down to a parameter.

    Args:
        node: Of a tensor without a batch axis.

    Returns:
        The parameter, or None if something else is on the way; and the operations.
    """
    passed = []
    while not is_leaf(node):
        if node.name() not in ISOMETRIC and not looks_up_each_once(node):
            return None, passed
        passed.append(node)
        node = node.next_functions[0][0]
        if node is None:
            return None, passed
    return node.variable, passed


def looks_up_each_once(node: Any) -> bool:
    """Whether it is a table read at different rows, as by positions."""
    if node.name() != "EmbeddingBackward0" or node._saved_scale_grad_by_freq:
        return False
    rows = node._saved_indices.flatten()
    return len(rows.unique()) == len(rows) and not bool((rows == node._saved_padding_idx).any())


def parameters_behind(node: Any) -> list[nn.Parameter]:
    """All parameters that a tensor without a batch axis depends on."""
    stack, seen, found = [node], set[Node](), []
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if is_leaf(node):
                found.append(node.variable)
            stack.extend(child for child, _ in node.next_functions)
    return found
