import math

import pytest
import torch
import torch.nn.functional as F

from empirics.models import GPT2, GPT2Config
from theory.errors import InputError
from theory.serialize import content_hash, from_json, to_json

SMALL = {"vocab_size": 50, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
TOKENS = torch.randint(50, (3, 8), generator=torch.Generator().manual_seed(0))
TARGETS = TOKENS.roll(-1, dims=1)


def shaken(**options) -> GPT2:
    """A float64 model away from initialisation: gains, biases and all matrices are random and large."""
    model = GPT2Config(**SMALL, **options).build(seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def reference_logits(model: GPT2, tokens: torch.Tensor) -> torch.Tensor:
    """GPT-2 written out with explicit matrices and softmax, straight from the state dictionary."""
    w = {name: value.detach() for name, value in model.named_parameters()}
    layers, heads = model.config.n_layer, model.config.n_head

    def layer_norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]
        return scaled + w.get(f"{name}.bias", 0)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: tokens.size(1)]
    future = torch.ones(tokens.size(1), tokens.size(1)).triu(1).bool()
    for layer in (f"transformer.h.{i}" for i in range(layers)):
        q, k, v = linear(layer_norm(x, f"{layer}.ln_1"), f"{layer}.attn.c_attn").chunk(3, dim=-1)
        outputs = []
        for q_h, k_h, v_h in zip(*(part.chunk(heads, dim=-1) for part in (q, k, v)), strict=True):
            scores = q_h @ k_h.transpose(1, 2) / math.sqrt(q_h.size(-1))
            outputs.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v_h)
        x = x + linear(torch.cat(outputs, dim=-1), f"{layer}.attn.c_proj")
        hidden = linear(layer_norm(x, f"{layer}.ln_2"), f"{layer}.mlp.c_fc")
        gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(gelu, f"{layer}.mlp.c_proj")
    return layer_norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


@pytest.mark.parametrize("bias", [False, True])
def test_equals_gpt2_written_out(bias):
    model = shaken(bias=bias)
    torch.testing.assert_close(model(TOKENS), reference_logits(model, TOKENS), rtol=1e-10, atol=1e-10)


def test_parameter_names_are_nanogpts():
    model = GPT2Config(**SMALL | {"n_layer": 1}).build(seed=0)
    assert [name for name, _ in model.named_parameters()] == [
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_proj.weight",
        "transformer.h.0.ln_2.weight",
        "transformer.h.0.mlp.c_fc.weight",
        "transformer.h.0.mlp.c_proj.weight",
        "transformer.ln_f.weight",
    ]
    assert model.lm_head.weight is model.transformer.wte.weight
    assert "lm_head.weight" in model.state_dict()


def test_size_of_gpt2_124m():
    with torch.device("meta"):
        model = GPT2(GPT2Config(bias=True), generator=torch.Generator())
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_initialisation():
    model = GPT2Config(vocab_size=500, block_size=64, n_layer=8, n_head=2, n_embd=64, bias=True).build(seed=0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert bool((parameter == (0.0 if name.endswith("bias") else 1.0)).all()), name
        else:
            std = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            tolerance = 4 / math.sqrt(parameter.numel())
            assert parameter.std().item() == pytest.approx(std, rel=tolerance), name
            assert abs(parameter.mean().item()) < std * tolerance, name


def test_seed_is_the_only_randomness():
    models = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        models.append(GPT2Config(**SMALL).build(seed=5))
        assert torch.equal(torch.get_rng_state(), before)
    other = GPT2Config(**SMALL).build(seed=6)
    for name, parameter in models[0].named_parameters():
        assert torch.equal(parameter, models[1].get_parameter(name))
        assert parameter.dim() == 1 or not torch.equal(parameter, other.get_parameter(name))


@pytest.mark.parametrize("scale_invariant", [False, True])
def test_causal(scale_invariant):
    model = shaken(scale_invariant=scale_invariant)
    changed = TOKENS.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 50
    differs = (model(TOKENS) - model(changed)).abs().amax(dim=(0, 2)) > 1e-9
    assert differs.tolist() == [False] * 5 + [True] * 3


def test_loss_is_mean_nats():
    model = shaken()
    probabilities = model(TOKENS).softmax(-1)
    expected = -sum(probabilities[b, t, TARGETS[b, t]].log() for b in range(3) for t in range(8)) / 24
    assert model.loss(TOKENS, TARGETS).item() == pytest.approx(expected.item(), rel=1e-12)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
    assert model.loss(TOKENS, TARGETS).item() == pytest.approx(math.log(50), rel=1e-12)


def matrices(model: GPT2) -> list[torch.Tensor]:
    """Q, K, V, O, fc and proj of each layer."""
    found = []
    for block in model.transformer.h:
        found += list(block.attn.c_attn.weight.detach().chunk(3))
        found += [m.weight.detach() for m in (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)]
    return found


def test_scale_invariant_switch():
    model, plain = shaken(scale_invariant=True), shaken()
    loss, plain_loss = model.loss(TOKENS, TARGETS).item(), plain.loss(TOKENS, TARGETS).item()
    for matrix, plain_matrix in zip(matrices(model), matrices(plain), strict=True):
        for weights in (matrix, plain_matrix):
            weights.mul_(3.7)
        assert model.loss(TOKENS, TARGETS).item() == pytest.approx(loss, rel=1e-13)
        assert plain.loss(TOKENS, TARGETS).item() != pytest.approx(plain_loss, rel=1e-4)
        for weights in (matrix, plain_matrix):
            weights.div_(3.7)


def test_scale_invariant_gradients_are_orthogonal_to_weights():
    model = shaken(scale_invariant=True)
    model.loss(TOKENS, TARGETS).backward()
    for block in model.transformer.h:
        for linear in (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            cosine = F.cosine_similarity(linear.weight.grad.flatten(), linear.weight.flatten(), dim=0)
            assert abs(cosine.item()) < 1e-12


def test_dropout_only_in_training():
    model = shaken(dropout=0.5)
    assert not torch.equal(model(TOKENS), model(TOKENS))
    model.eval()
    assert torch.equal(model(TOKENS), model(TOKENS))
    torch.testing.assert_close(model(TOKENS), reference_logits(model, TOKENS), rtol=1e-10, atol=1e-10)


def test_too_long_a_sequence_is_refused():
    with pytest.raises(InputError, match=r"sequence length = 9 .* at most block_size = 8"):
        GPT2Config(**SMALL).build(seed=0)(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_layer", 0), ("n_embd", 15), ("vocab_size", 2.5), ("dropout", 1.0), ("dropout", -0.1), ("n_head", "2")],
)
def test_bad_shapes_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        GPT2Config(**SMALL | {field: value})


def test_bias_and_scale_invariance_exclude_each_other():
    with pytest.raises(InputError, match="bias"):
        GPT2Config(**SMALL, bias=True, scale_invariant=True)


def test_bad_seed_is_refused():
    with pytest.raises(InputError, match="seed"):
        GPT2Config(**SMALL).build(seed=-1)


def test_whole_numbers_may_be_spelt_as_floats():
    config = GPT2Config(**SMALL | {"n_layer": 2.0})
    assert content_hash(config) == content_hash(GPT2Config(**SMALL))
    config.build(seed=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    model = shaken()
    compiled = torch.compile(model.loss, backend="eager", fullgraph=True, dynamic=dynamic)
    torch.testing.assert_close(compiled(TOKENS, TARGETS), model.loss(TOKENS, TARGETS))


def test_json_round_trip():
    config = GPT2Config(**SMALL, scale_invariant=True)
    assert from_json(to_json(config)) == config
    assert content_hash(config) != content_hash(GPT2Config(**SMALL))
