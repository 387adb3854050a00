"""The emulated format against torch's own kernels in that format, and against the definition by explicit rounding."""

import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

from empirics.models import GPT2Config, ResNetConfig
from empirics.optimizers import build_optimizer
from empirics.precision import Rounding, emulate, round_to
from theory.errors import InputError
from theory.optimizers import AdamW

TYPES = {(7, 8): torch.bfloat16, (10, 5): torch.float16, (2, 5): torch.float8_e5m2}
BF16 = torch.bfloat16


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed)) * scale


def integers(*shape: int, seed: int) -> Tensor:
    """So small that every sum of products below is exact in float32, in whatever order it is taken."""
    return torch.randint(-9, 10, shape, generator=Generator().manual_seed(seed)).float()


OPERATIONS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "linear": (F.linear, [(3, 5, 16), (8, 16), (8,)]),
    "matmul": (torch.matmul, [(2, 4, 16), (16, 8)]),
    "@": (lambda a, b: a @ b, [(4, 16), (16, 8)]),
    "bmm": (torch.bmm, [(2, 4, 16), (2, 16, 8)]),
    "addmm": (torch.addmm, [(8,), (4, 16), (16, 8)]),
    "baddbmm": (torch.baddbmm, [(2, 4, 8), (2, 4, 16), (2, 16, 8)]),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(2, 4, 16), (2, 16, 8)]),
    "conv1d": (F.conv1d, [(2, 3, 9), (4, 3, 3)]),
    "conv2d": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), [(2, 3, 8, 8), (4, 3, 3, 3)]),
    "conv_transpose2d": (F.conv_transpose2d, [(2, 3, 4, 4), (3, 4, 2, 2)]),
    "add": (torch.add, [(4, 8), (4, 8)]),
    "+": (lambda a, b: a + b, [(2, 3, 4), (2, 3, 4)]),
}
NORMALISATIONS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 2, 8, 4)] * 3),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), [(4, 8), (8,), (8,)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (8,), w), [(4, 8), (8,)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 5), (4,), (4,)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), [(6, 4, 5), (4,), (4,)]),
}


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("width", [*TYPES, (3, 4), (9, 8)])
@pytest.mark.parametrize(("op", "shapes"), (OPERATIONS | NORMALISATIONS).values(), ids=OPERATIONS | NORMALISATIONS)
def test_operands_result_and_gradients_round(
    op: Callable, shapes: list, width: tuple[int, int], rounding: Rounding
) -> None:
    """By hand: float32 autograd between rounded operands, the result and each gradient rounded.

    Stochastically the order of the draws is nobody's business, so operands are given in the format already and what
    comes out need only be numbers of the format next to those of float32.
    """

    def to_format(x: Tensor) -> Tensor:
        return x.to(TYPES[width]).float() if width in TYPES else round_to(x, *width)

    given = [randn(*shape, seed=i) for i, shape in enumerate(shapes)]
    given = [to_format(x) for x in given] if rounding == "stochastic" else given
    leaves = [x.requires_grad_() for x in given]
    kept = [to_format(x.detach()).requires_grad_() for x in given]
    result = op(*kept)
    seed = randn(*result.shape, seed=9)
    seed = to_format(seed) if rounding == "stochastic" else seed
    gradients = grad(result, kept, to_format(seed))

    with emulate(*width, rounding):
        emulated = op(*leaves)
    found = (emulated, *grad(emulated, leaves, seed))
    for value, expected in zip(found, (result, *gradients), strict=True):
        if rounding == "nearest":
            assert torch.equal(value, to_format(expected))
        else:
            assert torch.equal(value, to_format(value))
            finite = value.isfinite()
            away = (value - expected)[finite].abs()
            smallest = 2.0 ** (2 - 2 ** (width[1] - 1))
            assert bool((away <= 2.0 ** -width[0] * expected[finite].abs().clamp(min=smallest)).all())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("op", "shapes"), OPERATIONS.values(), ids=OPERATIONS)
def test_products_and_adds_are_bitwise_torchs_own(op: Callable, shapes: list, kind: torch.dtype) -> None:
    """Sums are exact (`integers`), so no order of accumulation can tell the two apart: only roundings can."""
    leaves = [integers(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    native = [x.detach().to(kind).requires_grad_() for x in leaves]
    real = op(*native)
    seed = integers(*real.shape, seed=9)
    with emulate(*{v: k for k, v in TYPES.items()}[kind]):
        emulated = op(*leaves)
    assert torch.equal(emulated, real.float())
    for mine, theirs in zip(grad(emulated, leaves, seed), grad(real, native, seed.to(kind)), strict=True):
        assert torch.equal(mine, theirs.float())


def test_the_integers_above_do_round() -> None:
    a, b = integers(64, 64, seed=0), integers(64, 64, seed=1)
    with emulate():
        product = a @ b
    assert not torch.equal(product, a @ b)
    assert torch.equal(product, (a.bfloat16() @ b.bfloat16()).float())


@pytest.mark.parametrize("name", ["linear", "conv2d", "layer_norm", "rms_norm", "group_norm", "attention"])
def test_real_numbers_agree_with_bf16_kernels_up_to_accumulation(name: str) -> None:
    """Torch's kernels sum in another order (and attention rounds its probabilities): a few roundings of the largest."""
    op, shapes = (OPERATIONS | NORMALISATIONS)[name]
    leaves = [randn(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    native = [x.detach().to(BF16).requires_grad_() for x in leaves]
    real = op(*native)
    seed = randn(*real.shape, seed=9)
    with emulate():
        emulated = op(*leaves)
    pairs = zip((emulated, *grad(emulated, leaves, seed)), (real, *grad(real, native, seed.to(BF16))), strict=True)
    for mine, theirs in pairs:
        off = (mine - theirs.float()).detach().abs().max() / mine.detach().abs().max()
        assert float(off) < 3 * 2.0**-8  # each 2^-8 is half a spacing just below the largest


def test_adds_are_bitwise_torchs_own() -> None:
    a, b = randn(1000, 3, scale=100), randn(1000, 3, seed=1, scale=0.1)
    with emulate(7, 8):
        bf16 = a + b
    with emulate(10, 5):
        half = a.add(b)
    assert torch.equal(bf16, (a.bfloat16() + b.bfloat16()).float())
    assert torch.equal(half, (a.half() + b.half()).float())


def test_what_does_not_round() -> None:
    x, y = randn(4, 8), randn(8, seed=1)
    with emulate():
        outside = [x + y, x + 1.0, x.add(x, alpha=0.5), torch.add(input=x, other=y), x.sum() + x.mean(), x * x]
        outside += [F.gelu(x), x.softmax(1), F.cross_entropy(x, x.softmax(1)), x.double() + x.double(), x + x.double()]
        wide = x.double() @ x.double().T
    expected = [x + y, x + 1.0, x.add(x, alpha=0.5), torch.add(input=x, other=y), x.sum() + x.mean(), x * x]
    expected += [F.gelu(x), x.softmax(1), F.cross_entropy(x, x.softmax(1)), x.double() + x.double(), x + x.double()]
    assert all(torch.equal(a, b) for a, b in zip(outside, expected, strict=True))
    assert torch.equal(wide, x.double() @ x.double().T)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_in_place_and_out(rounding: Rounding) -> None:
    a, b = (round_to(randn(4, 4, seed=seed), 7, 8) for seed in (0, 1))
    x = a * 1.0
    kept = x
    with emulate(7, 8, rounding, Generator().manual_seed(0)):
        x += b
    with emulate(7, 8, rounding, Generator().manual_seed(0)):
        expected = a + b
        product = torch.empty(4, 4)
        torch.mm(a, b, out=product)
    assert x is kept
    assert torch.equal(x, expected)
    assert torch.equal(product, round_to(product, 7, 8))
    with emulate(), torch.no_grad():
        unrounded = a.clone().add_(b)
    assert torch.equal(unrounded, a.clone().add_(b))


def test_a_tensor_written_to_is_rounded_again() -> None:
    a = round_to(randn(8, 8), 5, 8)
    with emulate(5, 8), torch.no_grad():
        x = a @ a  # in the format now
        x.mul_(1.01)
        y = x.T @ a
    assert torch.equal(y, round_to(round_to(x, 5, 8).T @ a, 5, 8))


def test_running_statistics_stay_float32() -> None:
    norm, plain, x = nn.BatchNorm1d(4), nn.BatchNorm1d(4), round_to(randn(32, 4), 7, 8)
    with emulate():
        y = norm(x)
    expected = plain(x)
    for key, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[key], value)
    assert torch.equal(y, expected.bfloat16().float())


@pytest.mark.parametrize("name", ["gpt2", "resnet"])
@pytest.mark.parametrize("inside", [True, False])
def test_float32_in_emulation_is_float32(name: str, inside: bool) -> None:
    """Widths 23 and 8 go through the same graph as any other and change no bit, wherever backward and step run."""

    def trained(context: emulate | nullcontext) -> list[Tensor]:
        source = Generator().manual_seed(0)
        if name == "gpt2":
            model = GPT2Config(vocab_size=32, block_size=8, n_layer=2, n_head=2, n_embd=16).build(seed=0)
            batch = torch.randint(32, (2, 4, 8), generator=source)
        else:
            model = ResNetConfig(width=4).build(seed=0)
            batch = torch.randn(4, 1, 8, 8, generator=source), torch.arange(4)
        optimizer = build_optimizer(AdamW(lr=1e-2), model)
        for _ in range(3):
            with context:
                loss = model.loss(*batch)
                if inside:
                    loss.backward()
                    optimizer.step()
            if not inside:
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()
        return [*model.parameters(), *model.buffers()]

    plain, emulated, rounded = trained(nullcontext()), trained(emulate(23, 8)), trained(emulate(7, 8))
    assert all(torch.equal(a, b) for a, b in zip(plain, emulated, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain, rounded, strict=True))


@pytest.mark.parametrize("build", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam])
def test_optimizers_are_untouched(build: Callable[..., torch.optim.Optimizer]) -> None:
    def stepped(context: emulate | nullcontext) -> Tensor:
        p = nn.Parameter(randn(8, 8))
        optimizer = build([p], lr=0.1, weight_decay=0.1, **({"momentum": 0.9} if build is torch.optim.SGD else {}))
        for seed in range(3):
            p.grad = randn(8, 8, seed=seed)
            with context:
                optimizer.step()
        return p

    assert torch.equal(stepped(nullcontext()), stepped(emulate(3, 4)))


def test_the_innermost_context_decides_and_exceptions_end_it() -> None:
    a, b = randn(8, 8), randn(8, 8, seed=1)
    bf16, half, plain = (a.to(kind).float() @ b.to(kind).float() for kind in (BF16, torch.float16, torch.float32))
    outer = emulate(7, 8)
    with outer:
        with emulate(10, 5):
            assert torch.equal(a @ b, half.half().float())
        with emulate(23, 8), pytest.raises(ZeroDivisionError), outer:
            raise ZeroDivisionError
        with emulate(23, 8):
            assert torch.equal(a @ b, plain)
        with outer:
            assert torch.equal(a @ b, bf16.bfloat16().float())
        assert torch.equal(a @ b, bf16.bfloat16().float())
    assert torch.equal(a @ b, plain)


def test_a_context_holds_for_its_thread_only() -> None:
    a, seen = randn(8, 8), []
    with emulate():
        thread = threading.Thread(target=lambda: seen.append(a @ a))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], a @ a)


def test_stochastic_training_repeats_with_its_generator_and_leaves_torchs_alone() -> None:
    model = GPT2Config(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=16).build(seed=0)
    batch, before = torch.randint(32, (2, 4, 8), generator=Generator().manual_seed(0)), torch.get_rng_state()

    def gradient(seed: int) -> Tensor:
        model.zero_grad()
        with emulate(7, 8, "stochastic", Generator().manual_seed(seed)):
            model.loss(*batch).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    one, two, other = gradient(1), gradient(1), gradient(2)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("width", [(7, 8), (3, 4)])
def test_derivatives_of_every_kind(width: tuple[int, int]) -> None:
    """Rounding is transparent to autograd: each kind of derivative is that of a linear map with rounded weights."""
    x, v, w = randn(4), randn(4, seed=1), randn(4, 4, seed=2)
    kept_w, kept_v = round_to(w, *width), round_to(v, *width)

    def f(x: Tensor) -> Tensor:
        with emulate(*width):
            return F.linear(x, w)

    expected = round_to(kept_v @ kept_w.T, *width)
    assert torch.equal(torch.func.jvp(f, (x,), (v,))[1], expected)
    assert torch.equal(torch.func.vjp(f, x)[1](v)[0], round_to(kept_v @ kept_w, *width))
    assert torch.equal(torch.func.jacrev(f)(x), kept_w)
    assert torch.equal(torch.func.jacfwd(f)(x), kept_w)
    start, leaf = x.clone().requires_grad_(), v.clone().requires_grad_()
    (first,) = grad(f(start), start, leaf, create_graph=True)
    (second,) = grad(first, leaf, v)
    assert torch.equal(second, expected)
    with torch.inference_mode():
        assert torch.equal(f(x), round_to(round_to(x, *width) @ kept_w.T, *width))


def test_checkpointing_recomputes_in_the_format_when_told_to() -> None:
    w, x = randn(8, 8).requires_grad_(), randn(4, 8, seed=1).requires_grad_()

    def block(x: Tensor) -> Tensor:
        return F.gelu(F.linear(x, w)) @ w

    with emulate():
        plain = grad(block(x).sum(), (w, x))
        kept = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), emulate()))
    assert all(torch.equal(a, b) for a, b in zip(grad(kept.sum(), (w, x)), plain, strict=True))


def test_layers_it_cannot_see_into_are_refused() -> None:
    x = randn(3, 2, 4)
    for layer in (nn.MultiheadAttention(4, 2), nn.LSTM(4, 4), nn.GRU(4, 4), nn.RNN(4, 4)):
        arguments = (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)
        with emulate(), pytest.raises(InputError, match=r"^\w+ cannot be emulated: [^\n]*\.$"):
            layer(*arguments)


@pytest.mark.parametrize(
    ("arguments", "field"), [((0, 8), "mantissa"), ((7, 9), "exponent"), ((7, 8, "down"), "rounding")]
)
def test_bad_input_gets_one_sentence(arguments: tuple, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field} = .* must be .*\.$"):
        emulate(*arguments)
