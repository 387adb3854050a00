"""Rounding against torch's own types, exhaustively where that is possible, and against exact arithmetic elsewhere."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from empirics.precision import Rounding, round_to
from empirics.precision.rounding import Format
from theory.errors import InputError

TYPES = {(7, 8): torch.bfloat16, (10, 5): torch.float16, (2, 5): torch.float8_e5m2}


def floats(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(bits.astype(np.uint32).view(np.int32)).view(torch.float32)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, but for the payload of nans."""
    number = ~b.isnan()
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a[number].view(torch.int32), b[number].view(torch.int32))


def patterns() -> Tensor:
    """Every upper half of a float32 (all signs, exponents, subnormals, infinities, nans) with telling lower halves."""
    upper = np.arange(2**16, dtype=np.uint64) << 16
    lower = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xF000, 0xFFFF]
    drawn = np.random.default_rng(0).integers(0, 2**32, 2**18, dtype=np.uint64)
    return torch.cat([floats(upper | low) for low in lower] + [floats(drawn)])


@pytest.mark.parametrize(("width", "kind"), TYPES.items())
def test_nearest_is_torchs_own_type(width: tuple[int, int], kind: torch.dtype) -> None:
    x = patterns()
    assert same(round_to(x, *width), x.to(kind).float())


@pytest.mark.parametrize("width", [(7, 8), (10, 5)])
def test_the_general_arithmetic_is_the_native_cast(width: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = patterns()
    expected = round_to(x, *width)
    monkeypatch.setattr("empirics.precision.rounding.NATIVE", {})
    assert Format(*width).native is None
    assert same(round_to(x, *width), expected)


def test_every_neighbourhood_of_every_half() -> None:
    """All fp16 numbers, the ties between them, and the float32 numbers next to both."""
    half = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    half = half[half.isfinite()].unique()
    points = torch.cat([half, (half[1:] + half[:-1]) / 2, torch.tensor([65520.0, -65520.0])])
    x = torch.cat([points, points.nextafter(torch.tensor(torch.inf)), points.nextafter(torch.tensor(-torch.inf))])
    assert same(round_to(x, 10, 5), x.half().float())


def exact(x: Tensor, mantissa: int, exponent: int) -> Tensor:
    """Round to nearest in float64, which holds every float32, every spacing and every quotient exactly."""
    step = spacing(x, mantissa, exponent)
    rounded = (x.double() / step).round() * step  # torch's round, too, goes to even
    over = rounded.abs() > (2 - 2.0**-mantissa) * 2.0 ** (2 ** (exponent - 1) - 1)
    return torch.where(over, rounded * torch.inf, rounded).float()


def spacing(x: Tensor, mantissa: int, exponent: int) -> Tensor:
    _, power = x.double().frexp()
    return 2.0 ** ((power - 1).clamp(min=2 - 2 ** (exponent - 1)) - mantissa).double()


@pytest.mark.parametrize("mantissa", [1, 2, 3, 8, 13, 21, 22, 23])
@pytest.mark.parametrize("exponent", [2, 3, 4, 5, 7, 8])
def test_nearest_of_any_width(mantissa: int, exponent: int) -> None:
    x = patterns()
    x = x[x.isfinite()]
    assert same(round_to(x, mantissa, exponent), exact(x, mantissa, exponent))


@pytest.mark.parametrize("width", [(7, 8), (10, 5), (3, 4), (22, 7), (23, 5), (23, 8)])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_what_is_no_number_stays(width: tuple[int, int], rounding: Rounding) -> None:
    nans = floats(np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000]))
    x = torch.cat([nans, torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])])
    assert same(round_to(x, *width, rounding), x)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_float32_and_empty_tensors_come_back_as_copies(rounding: Rounding) -> None:
    x = patterns()
    y = round_to(x, 23, 8, rounding)
    assert same(y, x)
    assert y.data_ptr() != x.data_ptr()
    assert round_to(torch.empty(0, 3), 3, 4, rounding).shape == (0, 3)


@pytest.mark.parametrize("width", [(7, 8), (10, 5), (3, 4), (5, 8)])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_any_layout_in_memory(width: tuple[int, int], rounding: Rounding) -> None:
    x = torch.randn(6, 8, generator=Generator().manual_seed(0))
    for view in (x.T, x[:, ::3], x[:1].expand(5, 8), x.T.unflatten(0, (2, 4)), x[0, 0]):
        before = view.clone()
        assert not round_to(view.clone().requires_grad_(), *width, rounding).requires_grad
        y = round_to(view, *width, rounding, Generator().manual_seed(1))
        assert same(y, round_to(view.contiguous(), *width, rounding, Generator().manual_seed(1)))
        assert torch.equal(view, before)


NEIGHBOURS = {
    "bf16": ((7, 8), 1.0, 2.0**-7, 0.3),
    "bf16, negative": ((7, 8), -3.0, -(2.0**-6), 0.71),
    "bf16, last step of a binade": ((7, 8), 2 - 2.0**-7, 2.0**-7, 0.25),
    "bf16, subnormal": ((7, 8), 2.0**-130, 2.0**-133, 0.5),
    "fp16": ((10, 5), 1000.0, 0.5, 0.125),
    "fp16, subnormal": ((10, 5), 3 * 2.0**-24, 2.0**-24, 0.9),
    "fp16, below the smallest": ((10, 5), 0.0, 2.0**-24, 0.01),
    "more than 16 bits of noise": ((3, 4), 1.0, 2.0**-3, 0.6),
    "hardly any noise": ((22, 8), 1.0, 2.0**-22, 0.5),
}


@pytest.mark.parametrize(("width", "below", "step", "fraction"), NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_stochastic_rounding_takes_a_neighbour_and_is_unbiased(
    width: tuple[int, int], below: float, step: float, fraction: float
) -> None:
    n = 400_000
    x = torch.full((n,), below + fraction * step)
    fraction = float((x[0].double() - below) / step)  # of the float32 number that this really is
    y = round_to(x, *width, "stochastic", Generator().manual_seed(0))
    up = y == below + step
    assert bool((up | (y == below)).all())
    error = (fraction * (1 - fraction) / n) ** 0.5  # of a mean of independent draws: they are, as far as this goes
    assert abs(float(up.double().mean()) - fraction) < 4 * error


@pytest.mark.parametrize("width", [(7, 8), (10, 5), (3, 4)])
def test_stochastic_rounding_keeps_the_numbers_of_the_format(width: tuple[int, int]) -> None:
    x = round_to(patterns(), *width)
    mixed = torch.cat([x, torch.tensor([1.00001])])  # so that there is something to draw for
    assert same(round_to(mixed, *width, "stochastic")[:-1], x)


@pytest.mark.parametrize("width", [(7, 8), (10, 5), (3, 4)])
def test_stochastic_rounding_ends_less_than_a_spacing_away(width: tuple[int, int]) -> None:
    x = patterns()
    x = x[x.isfinite()]
    y = round_to(x, *width, "stochastic")
    assert same(round_to(y, *width), y)
    assert torch.equal(y.signbit(), x.signbit())
    assert bool((x.abs()[y.isinf()] > Format(*width).largest).all())
    x, y = x[y.isfinite()], y[y.isfinite()]
    assert bool(((y.double() - x.double()).abs() < spacing(x, *width)).all())


def test_beyond_the_largest_number_lies_infinity() -> None:
    n = 100_000
    y = round_to(torch.full((n,), 65504.0 + 8), 10, 5, "stochastic", Generator().manual_seed(0))  # a quarter of a step
    assert set(y.unique().tolist()) == {65504.0, float("inf")}
    assert abs(float(y.isinf().double().mean()) - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
    assert round_to(torch.tensor([65536.0, -1e30]), 10, 5, "stochastic").tolist() == [torch.inf, -torch.inf]


def test_errors_of_different_elements_are_uncorrelated() -> None:
    """Sums over a tensor's rows, its columns and all of it have the variance of independent errors."""
    source, shape = Generator().manual_seed(0), (40, 103)
    x = torch.full(shape, 1 + 2.0**-8)  # halfway: every error is +-1/2 spacing
    draws = torch.stack([(round_to(x, 7, 8, "stochastic", source) - x) * 2.0**8 for _ in range(2000)]).double()
    for sums, count in ((draws.sum((1, 2)), 40 * 103), (draws.sum(1), 40), (draws.sum(2), 103)):
        ratio = float(sums.square().mean() / count)
        assert abs(ratio - 1) < 4 * (2 / 2000) ** 0.5  # a variance estimated from 2000 Gaussian sums, or more of them


def test_noise_is_the_generators_alone() -> None:
    x = torch.randn(1000, generator=Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, two, other = (round_to(x, 7, 8, "stochastic", Generator().manual_seed(seed)) for seed in (1, 1, 2))
    shared = [round_to(x, 7, 8, "stochastic") for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(*shared)  # nobody's calls repeat each other's noise


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((torch.ones(2).double(), 7, 8), "tensor"),
        (([1.0], 7, 8), "tensor"),
        ((torch.ones(2), 0, 8), "mantissa"),
        ((torch.ones(2), 24, 8), "mantissa"),
        ((torch.ones(2), 7.5, 8), "mantissa"),
        ((torch.ones(2), 7, 1), "exponent"),
        ((torch.ones(2), 7, 9), "exponent"),
        ((torch.ones(2), 7, 8, "up"), "rounding"),
        ((torch.ones(2), 7, 8, "stochastic", 3), "generator"),
        ((torch.ones(2, device="meta"), 7, 8, "stochastic"), "generator"),
    ],
)
def test_bad_input_gets_one_sentence(arguments: tuple, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field} [^\n]*must be [^\n]*\.$"):
        round_to(*arguments)
