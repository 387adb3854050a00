# pyright: reportPrivateImportUsage=false
"""A context in which matrix products, residual adds and normalisations compute as in a narrow format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from empirics.precision.rounding import Format, Rounding
from theory.errors import InputError


def named(names: str) -> frozenset[Callable[..., Any]]:
    """Every way to call functions: torch.x, torch.nn.functional.x, Tensor.x, torch.linalg.x.

    Args:
        names: Their names, separated by blanks.

    Returns:
        The functions there are.
    """
    spaces = (torch, F, Tensor, torch.linalg)
    return frozenset(getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name))


PRODUCTS = named(
    "mm bmm mv dot vdot matmul inner outer ger addmm addmv addbmm baddbmm addr __matmul__ __rmatmul__ einsum tensordot "
    "chain_matmul multi_dot linear bilinear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d "
    "conv_transpose3d scaled_dot_product_attention"
)
NORMALISATIONS = named(
    "layer_norm group_norm rms_norm batch_norm instance_norm native_layer_norm native_group_norm native_batch_norm"
)
ADDS = named("add __add__ __radd__")
IN_PLACE = {Tensor.add_: Tensor.add, Tensor.__iadd__: Tensor.add} | {
    getattr(Tensor, f"{name}_"): getattr(Tensor, name) for name in ("addmm", "addmv", "addbmm", "baddbmm", "addr")
}
IN_PLACE_ADDS = (Tensor.add_, Tensor.__iadd__)
REFUSED = named(
    "multi_head_attention_forward lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
)
STATISTICS = {F.batch_norm: (1, 2), F.instance_norm: (1, 2)} | dict.fromkeys(
    (torch.batch_norm, torch.native_batch_norm, torch.instance_norm), (3, 4)
)  # positions of the running mean and variance, which are updated in place


class emulate(TorchFunctionMode):
    """Compute as hardware of a narrow format does: operands rounded, accumulated in float32, result rounded.

    What rounds, forward and backward, where tensors are float32:

    - matrix products: linear, matmul and its kin, einsum, convolutions, scaled_dot_product_attention (as one operation:
      scores and probabilities inside it stay float32);
    - residual adds: `x + y` of two tensors of the same shape with at least one dimension, not scaled by `alpha`; in
      place (`x += y`) only where autograd records, for under no_grad that is how optimizers update their state;
    - normalisations: layer, group, RMS, batch and instance norm; statistics are float32, running ones stay so.

    Of each of these the operands (weights and biases too) and the result are rounded; on the way back, the gradient
    that reaches the result and those that leave to the operands. The forward result is therefore that of a bf16 kernel
    under autocast, up to the order of its float32 sum. Gradients that meet at a tensor are summed in float32 and
    rounded by the operation that made it; those of weights arrive rounded and add up in float32.

    What does not round: softmax, cross-entropy, activations, dropout, embeddings, broadcast adds (all float32, as their
    operands come; what a product reads of them it rounds itself), tensors of other types, the weights themselves
    (float32 masters: see `round_weights`), torch's optimizers and their state.

    The rounding is part of the graph, so `backward` may come inside or after the context; what is recomputed during
    backward is not rounded, so give `torch.utils.checkpoint` a `context_fn` that enters the context again. Contexts
    nest (the innermost decides alone; width (23, 8) is float32), may be entered again and again, end with any
    exception, and hold for their thread only. Double backward and torch.func's transforms work; stochastic noise under
    vmap is drawn per sample.

    Cost of a training step over the float32 one, one CPU thread (benchmarks/results/emulation_cost.json, medians): bf16
    and fp16 to nearest 1.1 to 1.2 on small GPT-2s, 1.3 to 1.4 on the smallest ResNets (10 to 17 ms a step); stochastic
    bf16 1.3 to 1.5, and 2.0 to 2.3; other widths, such as e4m3, 1.4 to 1.7, and 2.1 to 2.3.

    Args:
        mantissa: Explicit mantissa bits, 1 to 23; 7 is bf16, 10 is fp16.
        exponent: Exponent bits, 2 to 8; 8 is bf16, 5 is fp16 (gradients then underflow, as they do there).
        rounding: "nearest" (ties to even) or "stochastic".
        generator: Source of the noise of stochastic rounding, as in `round_to`; never torch's global one.

    Raises:
        InputError: If a width or the rounding is not allowed; inside the context, by operations that do a whole layer
            at once and cannot be rounded inside: nn.MultiheadAttention and recurrent layers.

    Source: Micikevicius et al., arXiv 1710.03740 (float32 accumulation and masters); Kalamkar et al., arXiv 1905.12322.

    Example:
        >>> x = torch.tensor([[1.004]], requires_grad=True)
        >>> with emulate(mantissa=7, exponent=8):
        ...     y = x @ torch.tensor([[1.02]])
        >>> y.backward()
        >>> y.item(), x.grad.item()
        (1.03125, 1.0234375)
    """

    def __init__(
        self,
        mantissa: int = 7,
        exponent: int = 8,
        rounding: Rounding = "nearest",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.format = Format(mantissa, exponent, rounding, generator)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        if func in PRODUCTS or func in NORMALISATIONS or (func in ADDS and _residual(*args, **kwargs)):
            return self._rounded(func, args, kwargs)
        if func in IN_PLACE and torch.is_grad_enabled() and (func not in IN_PLACE_ADDS or _residual(*args, **kwargs)):
            return args[0].copy_(self._rounded(IN_PLACE[func], args, kwargs))
        if func in REFUSED:
            raise InputError(f"{func.__name__} cannot be emulated: build the layer from linear maps and attention.")
        return func(*args, **kwargs)

    def _rounded(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operation on rounded operands, its result rounded."""
        kept = STATISTICS.get(func, ())
        with torch._C.DisableTorchFunction():  # contexts further out have no say in it
            out = kwargs.pop("out", None)
            operands = [arg if i in kept else self._round(arg) for i, arg in enumerate(args)]
            named = {k: v if k.startswith("running_") else self._round(v) for k, v in kwargs.items()}
            result = func(*operands, **named)
            result = (self._round(result[0]), *result[1:]) if isinstance(result, tuple) else self._round(result)
            return result if out is None else out.copy_(result)

    def _round(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._round_tensor(value) if value.dtype == torch.float32 else value
        return [self._round(each) for each in value] if isinstance(value, (list, tuple)) else value

    def _round_tensor(self, x: Tensor) -> Tensor:
        if self.format.native is not None:  # torch's casts round the gradient on its way back too
            return x.to(self.format.native).to(torch.float32)
        return _Round.apply(x, self.format)


def _residual(input: Any = None, other: Any = None, *rest: Any, alpha: Any = 1, **_: Any) -> bool:
    """Whether these arguments of an add are those of a residual add."""
    if rest or alpha != 1 or not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        return False
    return input.dtype == other.dtype == torch.float32 and input.shape == other.shape and input.dim() > 0


class _Round(Function):
    """Round on the way forward, and the gradient on the way back."""

    @staticmethod
    def forward(x: Tensor, format: Format) -> Tensor:
        return _fresh(x, format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Format], output: Tensor) -> None:
        ctx.format = inputs[1]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if grad is None:
            return None, None
        return (_round(grad, ctx.format) if torch.is_grad_enabled() else _fresh(grad, ctx.format)), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _round(tangent, ctx.format)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, format: Format) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _round(x, format), in_dims[0]


def _round(x: Tensor, format: Format) -> Tensor:
    if torch._C._are_functorch_transforms_active():
        return _Round.apply(x, format)
    inherited: Any = super(Function, _Round)
    return inherited.apply(x, format)  # Function's own inspects signatures, which takes longer than the rounding


def _fresh(x: Tensor, format: Format) -> Tensor:
    """Round, unless x or the tensor it is a view of was rounded to this format and has not been written to since."""
    if torch.is_inference_mode_enabled() or x.is_inference():  # no record is kept there of what is written to
        return format.round(x)
    base = x if x._base is None else x._base
    if getattr(base, "rounded", None) == (format, base._version):
        return x
    y = format.round(x)
    y.rounded = format, y._version  # pyright: ignore[reportAttributeAccessIssue]
    return y
