"""The tensors of a model as the mathematics sees them: one a matrix, with fused Q, K and V taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from theory.errors import InputError

# Modules that stack Q, K and V in this order. GPT-NeoX's and BLOOM's query_key_value interleaves them head by head:
# a third of it is no matrix of the model, so it stays whole.
FUSED_QKV = frozenset({"c_attn", "in_proj", "qkv", "qkv_proj", "Wqkv"})


@dataclass(frozen=True, eq=False)
class TensorView:
    """A parameter, or the slice of one that acts as a matrix of its own.

    Example:
        >>> [view.name for view in tensors(nn.Linear(3, 2))]
        ['weight', 'bias']
    """

    name: str
    """The parameter's name, followed by .q, .k or .v for a part of a fused projection."""
    parameter_name: str
    """Name of the parameter, as `named_parameters` spells it."""
    parameter: nn.Parameter
    """The live parameter."""
    dim: int | None = None
    """Dimension that is sliced; None for the whole parameter."""
    start: int = 0
    """First index of the slice."""
    stop: int = 0
    """Index after the last of the slice."""

    def of(self, tensor: Tensor) -> Tensor:
        """The same slice of another tensor of the parameter's shape, such as its gradient.

        Args:
            tensor: Shaped like the parameter.

        Returns:
            A view of it.
        """
        return tensor if self.dim is None else tensor.narrow(self.dim, self.start, self.stop - self.start)

    def view(self) -> Tensor:
        """The live values, detached: writing to them writes to the model.

        Returns:
            A view of the parameter.
        """
        return self.of(self.parameter.detach())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the slice."""
        return tuple(self.view().shape)


def tensors(model: nn.Module, *, trainable: bool = True) -> tuple[TensorView, ...]:
    """List a model's tensors: tied parameters once, fused Q, K, V apart.

    A parameter is split if its module (or itself) is named like a fused projection (`FUSED_QKV`) and one of its
    dimensions is three times the other: rows in torch.nn.Linear, columns in Hugging Face's Conv1D.

    Args:
        model: Any module.
        trainable: Leave out parameters that do not require a gradient.

    Returns:
        The views, in the order of `named_parameters`.

    Raises:
        InputError: If there is no such parameter, or one is sparse, complex or not yet initialised.

    Example:
        >>> [view.name for view in tensors(nn.MultiheadAttention(8, 2, bias=False))]
        ['in_proj_weight.q', 'in_proj_weight.k', 'in_proj_weight.v', 'out_proj.weight']
    """
    views = tuple(
        view for name, p in model.named_parameters() if p.requires_grad or not trainable for view in split(name, p)
    )
    if not views:
        kind = "trainable parameters" if trainable else "parameters"
        raise InputError(f"model = {type(model).__name__} has no {kind}: there must be at least one.")
    return views


def split(name: str, parameter: nn.Parameter) -> Iterator[TensorView]:
    """Yield the views of one parameter."""
    if is_lazy(parameter):
        raise InputError(f"parameter {name!r} has no shape yet: run one forward pass before measuring.")
    if parameter.is_complex() or parameter.layout is not torch.strided:
        kind = "complex" if parameter.is_complex() else str(parameter.layout).removeprefix("torch.")
        raise InputError(f"parameter {name!r} is {kind}: only real, dense parameters can be measured.")
    dim = fused_dim(name, parameter)
    if dim is None:
        yield TensorView(name, name, parameter)
        return
    width = parameter.size(dim) // 3
    for i, part in enumerate("qkv"):
        yield TensorView(f"{name}.{part}", name, parameter, dim, i * width, (i + 1) * width)


def fused_dim(name: str, parameter: Tensor) -> int | None:
    """The dimension along which a parameter stacks Q, K and V; None if it is not such a parameter."""
    *modules, leaf = name.split(".")
    module = modules[-1] if modules else ""
    kind = leaf.removeprefix("in_proj_") if leaf.startswith("in_proj_") else leaf
    if module not in FUSED_QKV and leaf == kind:
        return None
    if parameter.dim() == 1 and kind == "bias" and parameter.numel() % 3 == 0:
        return 0
    if parameter.dim() == 2 and kind == "weight":
        rows, columns = parameter.shape
        return 0 if rows == 3 * columns else 1 if columns == 3 * rows else None
    return None
