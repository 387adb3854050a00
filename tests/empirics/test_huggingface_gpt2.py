import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from empirics.huggingface_gpt2 import export_gpt2, import_gpt2
from empirics.models import GPT2Config
from theory.errors import InputError

CONFIG = GPT2Config(vocab_size=37, block_size=9, n_layer=2, n_head=2, n_embd=8)
TOKENS = torch.randint(37, (3, 9), generator=torch.Generator().manual_seed(0))


def scattered(config, *, approximate="none"):
    """A model none of whose tensors is what it was initialised with."""
    model = config.build(seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    for block in model.transformer.h:
        block.mlp.approximate = approximate
    return model


def forward(folder, tokens):
    """Hugging Face's GPT-2 written out from its files: every linear map is x @ W + b."""
    config, t = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    heads, width, length = config["n_head"], config["n_embd"], tokens.shape[1]
    norm = lambda x, name: F.layer_norm(
        x, (width,), t[f"{name}.weight"], t[f"{name}.bias"], config["layer_norm_epsilon"]
    )
    linear = lambda x, name: x @ t[f"{name}.weight"] + t[f"{name}.bias"]
    gelu = {"gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}[config["activation_function"]]
    split = lambda x: x.view(*x.shape[:2], heads, width // heads).transpose(1, 2)
    x = t["transformer.wte.weight"][tokens] + t["transformer.wpe.weight"][:length]
    for i in range(config["n_layer"]):
        name = f"transformer.h.{i}"
        q, k, v = map(split, linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").split(width, dim=2))
        scores = (q @ k.transpose(2, 3) / (width // heads) ** 0.5).masked_fill(
            torch.ones(length, length).triu(1).bool(), float("-inf")
        )
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + linear(y, f"{name}.attn.c_proj")
        x = x + linear(gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")), f"{name}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ t["transformer.wte.weight"].T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_files_are_hugging_faces_model_and_come_back(tmp_path, bias, approximate):
    model = scattered(replace(CONFIG, bias=bias), approximate=approximate)
    folder = export_gpt2(model, tmp_path / "model")
    with torch.no_grad():
        expected = model(TOKENS)
        assert torch.allclose(forward(folder, TOKENS), expected, atol=1e-5)
        again = import_gpt2(folder).eval()
        assert torch.equal(again(TOKENS), expected)
    assert again.config == model.config
    assert again.lm_head.weight is again.transformer.wte.weight
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


@pytest.mark.parametrize("bias", [False, True])
def test_transformers_reads_it_and_we_read_transformers(tmp_path, bias):
    transformers = pytest.importorskip("transformers")
    model = scattered(replace(CONFIG, bias=bias))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(export_gpt2(model, tmp_path / "ours")).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(TOKENS).logits, model(TOKENS), atol=1e-5)
    sizes = {"vocab_size": 37, "n_positions": 9, "n_embd": 8, "n_layer": 2, "n_head": 2}
    fresh = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()  # gelu_new
    fresh.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        assert torch.allclose(import_gpt2(tmp_path / "theirs").eval()(TOKENS), fresh(TOKENS).logits, atol=1e-5)


def test_the_hubs_own_files_have_no_prefix_and_hold_masks(tmp_path):
    model = scattered(replace(CONFIG, bias=True), approximate="tanh")
    folder = export_gpt2(model, tmp_path)
    file = folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(file).items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(9, 9).tril()[None, None].contiguous() for i in range(2)}
    save_file(tensors, file)
    with torch.no_grad():
        assert torch.equal(import_gpt2(folder).eval()(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "llama"}, "of the kind gpt2: its model_type is 'llama'"),
        ({"activation_function": "relu"}, "activation_function = 'relu' .* one of gelu, gelu_new"),
        ({"n_inner": 16}, "n_inner = 16"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ({"n_embd": 16}, r"wte.weight is of shape \(37, 8\), not \(37, 16\)"),
        ({"n_layer": 3}, r"h.2.ln_1.weight is missing"),
        ({"n_layer": 1}, r"holds tensors that a GPT-2 does not have: h.1"),
    ],
)
def test_what_it_cannot_be_is_one_sentence(tmp_path, change, sentence):
    folder = export_gpt2(scattered(replace(CONFIG, bias=True)), tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=sentence):
        import_gpt2(folder)


def test_damaged_and_missing_files_and_a_scale_invariant_model(tmp_path):
    folder = export_gpt2(scattered(CONFIG), tmp_path)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a Hugging Face model"):
        import_gpt2(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"there is no model.safetensors"):
        import_gpt2(folder)
    with pytest.raises(InputError, match=r"model.scale_invariant = True"):
        export_gpt2(replace(CONFIG, scale_invariant=True).build(0), tmp_path)
