"""Rounding float32 tensors to any narrower IEEE format: to nearest, ties to even, or stochastically without bias."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor

from theory.errors import InputError, require, whole

Rounding = Literal["nearest", "stochastic"]

NATIVE = {(7, 8): torch.bfloat16, (10, 5): torch.float16}  # torch's own casts are the fastest way to these two
FLOAT32 = (23, 8)
SIGN = -(2**31)
COLUMNS = 1021  # of the table of noise: prime, so that its rows are no tensor's rows
_shared = Generator().manual_seed(0)  # of whoever gives none: never torch's global one


@dataclass(frozen=True)
class Format:
    """A binary floating-point format no wider than float32, with infinities and subnormals, and how to round to it.

    Args:
        mantissa: Explicit mantissa bits, 1 to 23.
        exponent: Exponent bits, 2 to 8.
        rounding: "nearest" (ties to even) or "stochastic".
        generator: Source of the noise of stochastic rounding; by default one that all share, seeded once a process.

    Raises:
        InputError: If a width or the rounding is not one of these.

    Example:
        >>> Format(10, 5).largest, Format(10, 5).smallest_normal == 2**-14
        (65504.0, True)
    """

    mantissa: int
    exponent: int
    rounding: Rounding = "nearest"
    generator: Generator | None = None

    def __post_init__(self) -> None:
        for field, high in (("mantissa", 23), ("exponent", 8)):
            low = 1 if field == "mantissa" else 2
            given = getattr(self, field)
            width = whole(field, given, low=low)
            require(width <= high, field, given, f"a whole number of bits from {low} to {high}")
            object.__setattr__(self, field, width)
        require(self.rounding in ("nearest", "stochastic"), "rounding", self.rounding, "'nearest' or 'stochastic'")
        is_generator = self.generator is None or isinstance(self.generator, Generator)
        require(is_generator, "generator", self.generator, "a torch.Generator")

    @property
    def smallest_normal(self) -> float:
        """Below it the numbers are equally spaced, down to zero."""
        return 2.0 ** (2 - 2 ** (self.exponent - 1))

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2 - 2.0**-self.mantissa) * 2.0 ** (2 ** (self.exponent - 1) - 1)

    @property
    def native(self) -> torch.dtype | None:
        """Torch's type of this format, if its casts there and back are this rounding."""
        return NATIVE.get((self.mantissa, self.exponent)) if self.rounding == "nearest" else None

    def round(self, x: Tensor) -> Tensor:
        """Round a float32 tensor, always into a new one; see `round_to`."""
        if (self.mantissa, self.exponent) == FLOAT32 or x.numel() == 0:
            return x.clone()
        if self.native is not None:
            return x.to(self.native).to(torch.float32)
        if self.rounding == "nearest":
            y = self._nearest(x) if self.exponent == 8 else self._nearest_narrow(x)
        else:
            y = self._stochastic(x)
        return torch.where(x.isnan(), x, y) if isnan(x.sum().item()) else y  # integer arithmetic may lose a nan

    def _nearest(self, x: Tensor) -> Tensor:
        """Add half a spacing to the bits and cut them off: a carry is the step to the next binade, or to inf."""
        tail, bits = 23 - self.mantissa, x.view(torch.int32)
        lifted = (bits >> tail).bitwise_and_(1).add_(bits).add_(2 ** (tail - 1) - 1)
        return lifted.bitwise_and_(-(2**tail)).view(torch.float32)

    def _nearest_narrow(self, x: Tensor) -> Tensor:
        """Add and subtract a power of two near which float32's own numbers are as far apart as ours near x."""
        bits, top = x.view(torch.int32), 2 ** (self.exponent - 1)  # numbers from 2^top on are inf
        binade = (bits & 0x7F800000).clamp_((129 - top) << 23, (127 + top) << 23)
        anchor = binade.add_(((23 - self.mantissa) << 23) + (1 << 22)).view(torch.float32)
        if self.mantissa > 21:  # the anchor needs more bits than float32 has
            anchor = anchor.double() * 2.0**29
            y = (x + anchor).sub_(anchor).float()
        else:
            y = (x + anchor).sub_(anchor)
        y = y.mul_(2.0 ** (128 - top)).mul_(2.0 ** (top - 128))
        return y.view(torch.int32).bitwise_or_(bits & SIGN).view(torch.float32)

    def _stochastic(self, x: Tensor) -> Tensor:
        """Add noise below the last kept bit and cut it off."""
        tail, bits, y = 23 - self.mantissa, x.view(torch.int32), x
        source = self._source(x)
        if tail and (bits & (2**tail - 1)).amax().item():  # noise costs more than finding that none is needed
            y = _noise(x, tail, source).add_(bits).bitwise_and_(-(2**tail)).view(torch.float32)
        if self.exponent < 8:
            y = torch.where(x.abs() < self.smallest_normal, self._stochastic_subnormal(x, source), y)
            y = torch.where(y.abs() > self.largest, y * torch.inf, y)
        return x.clone() if y is x else y

    def _stochastic_subnormal(self, x: Tensor, source: Generator) -> Tensor:
        exact = x.abs() * (2.0**self.mantissa / self.smallest_normal)
        floor = exact.floor()
        up = torch.rand(x.shape, generator=source, device=x.device) < exact - floor
        return ((floor + up) * (self.smallest_normal * 2.0**-self.mantissa)).copysign(x)

    def _source(self, x: Tensor) -> Generator:
        generator = _shared if self.generator is None else self.generator
        if generator.device.type != x.device.type:
            raise InputError(f"generator is on {generator.device}: it must be on the tensor's device, {x.device}.")
        return generator


def _noise(x: Tensor, tail: int, source: Generator) -> Tensor:
    """Uniform integers of so many bits, int32, of the shape of x, pairwise independent.

    Element (i, j) of a table is a_i xor b_j: any two (even three) elements are independent and uniform, so every mean,
    variance and covariance is exactly that of independent noise, at the cost of a row and a column of random numbers.
    """
    rows = -(-x.numel() // COLUMNS)
    shape = (COLUMNS + rows,) if rows > 1 else x.shape
    drawn = torch.randint(2**tail, shape, generator=source, dtype=torch.int32, device=x.device)
    if rows <= 1:
        return drawn
    return (drawn[COLUMNS:, None] ^ drawn[:COLUMNS]).view(-1)[: x.numel()].view(x.shape)


def round_to(
    tensor: Tensor, mantissa: int, exponent: int, rounding: Rounding = "nearest", generator: Generator | None = None
) -> Tensor:
    """Round to the numbers of a narrower floating-point format, kept as float32.

    "nearest": to nearest, ties to even, as IEEE 754 has it, bit for bit torch's own `.to(bfloat16)` (7, 8) and
    `.to(float16)` (10, 5): subnormal numbers are kept, overflow gives inf, infinities, nan and signed zeros stay.

    "stochastic": to one of the two neighbours, up with probability (x - below)/(above - below), so that the mean is x;
    numbers of the format stay as they are. The neighbour above the largest number is inf. Subnormal results are
    unbiased up to 2^-24 of their spacing, all others exactly.

    Source: IEEE 754-2019, section 4.3.1; stochastic rounding as in Gupta et al., arXiv 1502.02551.

    Args:
        tensor: float32, any shape; never changed.
        mantissa: Explicit mantissa bits, 1 to 23.
        exponent: Exponent bits, 2 to 8.
        rounding: "nearest" or "stochastic".
        generator: Source of the noise; by default one of this module's own, seeded once a process. torch's global
            generator is never touched.

    Returns:
        float32, same shape, always a new tensor, and not part of the autograd graph.

    Raises:
        InputError: If the tensor is not float32, a width is out of range, or the generator is on another device.

    Example:
        >>> round_to(torch.tensor([1.004, 70000.0, 1e-8]), 10, 5)
        tensor([1.0039,    inf, 0.0000])
        >>> round_to(torch.full((4,), 1.002), 7, 8, "stochastic", Generator().manual_seed(3)).unique()
        tensor([1.0000, 1.0078])
    """
    given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
    require(given == torch.float32, "tensor", cast(Any, given), "a float32 tensor")
    return Format(mantissa, exponent, rounding, generator).round(tensor.detach())
