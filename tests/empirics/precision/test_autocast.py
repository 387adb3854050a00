"""Emulated autocast: what is rounded, what is not, and torch's own attention as the oracle."""

import pytest
import torch
import torch.nn.functional as F

from empirics.models import GPT2Config
from empirics.precision import arithmetic
from empirics.precision.autocast import emulate_autocast
from empirics.precision.rounding import round_to
from theory.errors import InputError

X = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
Y = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(1))


def on_grid(x, mantissa=3):
    return torch.equal(x, round_to(x, mantissa, 8))


def test_products_softmax_and_gelu_are_rounded_and_nothing_else():
    with emulate_autocast(3):
        assert on_grid(X @ Y.transpose(-2, -1))
        assert on_grid(F.linear(X, Y[0, 0]))
        assert on_grid(F.softmax(X, -1))
        assert on_grid(F.gelu(X))
        assert torch.equal(X + Y, torch.add(X, Y))
        assert not on_grid(X + Y)
        assert not on_grid(F.layer_norm(X, (16,)))
        assert not on_grid(F.cross_entropy(X[0, 0], torch.arange(8)))


@pytest.mark.parametrize(("causal", "mask"), [(True, None), (False, None), (False, "boolean"), (False, "additive")])
def test_attention_is_torchs_at_full_width(causal, mask):
    keep = torch.ones(8, 8, dtype=torch.bool).tril(2)
    given = {None: None, "boolean": keep, "additive": torch.where(keep, 0.5, -3.0)}[mask]
    expected = F.scaled_dot_product_attention(X, Y, X, attn_mask=given, is_causal=causal)
    with emulate_autocast(23):
        found = F.scaled_dot_product_attention(X, Y, X, attn_mask=given, is_causal=causal)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_attention_rounds_logits_and_probabilities():
    with emulate_autocast(3):
        found = F.scaled_dot_product_attention(X, Y, X)
    q, k = round_to(X, 3, 8), round_to(Y, 3, 8)
    logits = round_to(q @ k.transpose(-2, -1), 3, 8) / 4
    weights = round_to(round_to(logits, 3, 8).softmax(-1), 3, 8)
    torch.testing.assert_close(found, round_to(weights @ q, 3, 8), rtol=0, atol=0)


def test_gradients_are_rounded_on_their_way_back():
    x = X[0, 0].clone().requires_grad_()
    with emulate_autocast(3):
        (x @ Y[0, 0].T).square().sum().backward()
    assert on_grid(x.grad)


def test_the_configurations_spelling():
    found = arithmetic("emulated:m3e8:autocast")
    assert found.as_autocast
    assert found.low
    assert isinstance(found.rounded(), emulate_autocast)
    assert arithmetic("emulated:m3e8:autocast:stochastic").rounding == "stochastic"
    assert not arithmetic("emulated:m3e8").as_autocast
    with pytest.raises(InputError, match="precision = 'emulated:m3e8:autocasts' is not allowed"):
        arithmetic("emulated:m3e8:autocasts")


def test_a_gpt2_trains_under_it():
    model = GPT2Config(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=16).build(seed=0)
    tokens = torch.randint(32, (4, 9), generator=torch.Generator().manual_seed(0))
    exact = model.loss(tokens[:, :-1], tokens[:, 1:])
    with emulate_autocast(3):
        rough = model.loss(tokens[:, :-1], tokens[:, 1:])
        rough.backward()
    assert 0 < abs(rough.item() - exact.item()) < 0.1
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
