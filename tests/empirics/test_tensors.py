import pytest
import torch
from torch import nn

from empirics.models import GPT2Config
from empirics.tensors import tensors
from theory.errors import InputError


class Conv1D(nn.Module):
    """As in Hugging Face's GPT-2: weight (in, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, inputs * outputs + 1).view(inputs, outputs))
        self.bias = nn.Parameter(torch.arange(float(outputs)))


def names(model: nn.Module) -> list[str]:
    return [view.name for view in tensors(model)]


def test_one_view_a_parameter_tied_ones_once_and_frozen_ones_on_request():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3, bias=False)})
    model["b"].weight = model["a"].weight
    model["a"].bias.requires_grad_(False)
    assert names(model) == ["a.weight"]
    assert [view.name for view in tensors(model, trainable=False)] == ["a.weight", "a.bias"]


def test_gpt2_has_its_q_k_v_apart_and_its_head_once():
    model = GPT2Config(vocab_size=16, block_size=4, n_layer=1, n_head=1, n_embd=4).build(seed=0)
    assert names(model) == [
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.attn.c_attn.weight.q",
        "transformer.h.0.attn.c_attn.weight.k",
        "transformer.h.0.attn.c_attn.weight.v",
        "transformer.h.0.attn.c_proj.weight",
        "transformer.h.0.ln_2.weight",
        "transformer.h.0.mlp.c_fc.weight",
        "transformer.h.0.mlp.c_proj.weight",
        "transformer.ln_f.weight",
    ]
    fused = model.get_parameter("transformer.h.0.attn.c_attn.weight")
    q, k, v = (view for view in tensors(model) if view.parameter is fused)
    assert torch.equal(torch.cat([q.view(), k.view(), v.view()]), fused)
    assert q.shape == (4, 4)


def test_conv1d_is_split_along_its_outputs_with_its_bias():
    model = nn.ModuleDict({"c_attn": Conv1D(2, 6)})
    views = {view.name: view for view in tensors(model)}
    assert list(views) == [f"c_attn.{leaf}.{part}" for leaf in ("weight", "bias") for part in "qkv"]
    assert torch.equal(views["c_attn.weight.k"].view(), model["c_attn"].weight[:, 2:4])
    assert torch.equal(views["c_attn.bias.v"].view(), model["c_attn"].bias[4:])


@pytest.mark.parametrize("name", ["in_proj", "qkv", "qkv_proj", "Wqkv"])
def test_other_names_of_fused_projections(name):
    assert len(names(nn.ModuleDict({name: nn.Linear(2, 6, bias=False)}))) == 3


def test_torch_attention_is_split():
    assert [name for name in names(nn.MultiheadAttention(4, 2)) if name.startswith("in_proj")] == [
        f"in_proj_{leaf}.{part}" for leaf in ("weight", "bias") for part in "qkv"
    ]


def test_what_only_looks_fused_stays_whole():
    cross, mlp = nn.Linear(2, 4, bias=False), nn.Linear(2, 6, bias=False)
    interleaved = nn.Linear(2, 6, bias=False)
    model = nn.ModuleDict({"c_attn": cross, "c_fc": mlp, "query_key_value": interleaved})
    assert names(model) == ["c_attn.weight", "c_fc.weight", "query_key_value.weight"]


def test_a_view_writes_through_and_slices_a_gradient_alike():
    model = nn.ModuleDict({"qkv": nn.Linear(2, 6, bias=False)})
    model["qkv"].weight.grad = torch.arange(12.0).view(6, 2)
    k = tensors(model)[1]
    k.view().zero_()
    assert model["qkv"].weight[2:4].abs().sum() == 0
    assert model["qkv"].weight[:2].abs().sum() > 0
    assert torch.equal(k.of(model["qkv"].weight.grad), torch.arange(4.0, 8.0).view(2, 2))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.ReLU(), "no trainable parameters"),
        (nn.Linear(2, 2, dtype=torch.complex64), "'weight' is complex"),
        (nn.LazyLinear(2), "'weight' has no shape yet"),
        (nn.ParameterDict({"w": nn.Parameter(torch.eye(2).to_sparse())}), "'w' is sparse_coo"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, sentence):
    with pytest.raises(InputError, match=sentence):
        tensors(model)
