"""GPT-2 in Hugging Face's format and back: config.json and model.safetensors, without the package transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from empirics.files import write_atomic
from empirics.models import GPT2, GPT2Config
from empirics.models.gpt2 import MLP
from theory.errors import InputError, require

TRANSPOSED = re.compile(r"(c_attn|c_proj|c_fc)\.weight$")
"""Hugging Face's Conv1D holds (inputs, outputs)."""
ACTIVATIONS = {"none": "gelu", "tanh": "gelu_new"}
"""Hugging Face's name of a GELU by torch's `approximate`."""
APPROXIMATE = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
UNUSED = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$|^lm_head\.weight$")
"""Causal masks of old files, and the head, which is tied."""
END_OF_TEXT = 50_256


def export_gpt2(model: GPT2, folder: Path | str) -> Path:
    """Write a model so that transformers' GPT2LMHeadModel.from_pretrained(folder) reads it.

    Biases that the model does not have are written as zeros, since Hugging Face's GPT-2 always has them.

    Args:
        model: The model.
        folder: Made if it is not there; its config.json and model.safetensors are replaced.

    Returns:
        The folder.

    Raises:
        InputError: If the model is scale-invariant, which Hugging Face's GPT-2 cannot be.
        DiskFullError: If the disk is full.
    """
    config, path = model.config, Path(folder)
    require(not config.scale_invariant, "model.scale_invariant", True, "false: Hugging Face's GPT-2 has no such switch")
    tensors: dict[str, Tensor] = {}
    for name, p in model.named_parameters():  # the tied head is named once, as the embedding
        value = p.detach().float().cpu()
        tensors[name] = (value.T if TRANSPOSED.search(name) else value).contiguous()
        if not config.bias and name.endswith(".weight") and ".wte" not in name and ".wpe" not in name:
            tensors[name.removesuffix("weight") + "bias"] = torch.zeros(p.shape[0])
    described = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None,
        "activation_function": ACTIVATIONS[activation(model)],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": model.transformer.ln_f.eps,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "bos_token_id": min(END_OF_TEXT, config.vocab_size - 1),
        "eos_token_id": min(END_OF_TEXT, config.vocab_size - 1),
        "torch_dtype": "float32",
    }
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / "model.safetensors", safetensors.torch.save(tensors, metadata={"format": "pt"}))
    write_atomic(path / "config.json", json.dumps(described, indent=1))
    return path


def import_gpt2(folder: Path | str) -> GPT2:
    """Read a GPT-2 that transformers, or `export_gpt2`, has written.

    A model whose biases are all zero becomes one without biases, which computes the same.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The model, in training mode, float32, on the CPU.

    Raises:
        InputError: If a file is missing or damaged, or the model is one that ours cannot be; says why.

    Example:
        >>> import_gpt2("nowhere")
        Traceback (most recent call last):
        theory.errors.InputError: nowhere cannot be read as a Hugging Face model: there is no config.json.
    """
    path = Path(folder)
    described, tensors = _read(path)
    plain = {name.removeprefix("transformer."): value.float() for name, value in tensors.items()}
    tensors = {name: value for name, value in plain.items() if not UNUSED.search(name)}
    biased = any(bool(value.any()) for name, value in tensors.items() if name.endswith(".bias"))
    approximate = APPROXIMATE[described["activation_function"]]
    config = GPT2Config(
        vocab_size=described["vocab_size"],
        block_size=described["n_positions"],
        n_layer=described["n_layer"],
        n_head=described["n_head"],
        n_embd=described["n_embd"],
        bias=biased,
        dropout=described.get("resid_pdrop", 0.0),
    )
    model = config.build(seed=0)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = described["layer_norm_epsilon"]
        if isinstance(module, MLP):
            module.approximate = approximate
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = tensors.pop(name.removeprefix("transformer."), None)
            if value is not None and TRANSPOSED.search(name):
                value = value.T
            if value is None or value.shape != p.shape:
                found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                raise InputError(f"{path} does not fit its config.json: {name} is {found}, not {tuple(p.shape)}.")
            p.copy_(value)
    left = [name for name in tensors if biased or not name.endswith(".bias")]
    if left:
        raise InputError(f"{path} holds tensors that a GPT-2 does not have: {', '.join(sorted(left)[:3])}.")
    return model


def activation(model: GPT2) -> str:
    """The `approximate` of a model's GELU."""
    return next(module.approximate for module in model.modules() if isinstance(module, MLP))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json, checked, and the tensors."""
    sentence = f"{path} cannot be read as a Hugging Face model"
    try:
        described = json.loads((path / "config.json").read_text())
        tensors = safetensors.torch.load_file(path / "model.safetensors")
    except FileNotFoundError as error:
        missing = "config.json" if not (path / "config.json").exists() else "model.safetensors"
        raise InputError(f"{sentence}: there is no {missing}.") from error
    except (ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"{sentence}: {error}.") from None
    keys = ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")
    absent = [key for key in keys if key not in described]
    if described.get("model_type") != "gpt2" or absent:
        raise InputError(f"{sentence} of the kind gpt2: its model_type is {described.get('model_type')!r}.")
    described = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5} | described
    known = ", ".join(APPROXIMATE)
    given = described["activation_function"]
    require(given in APPROXIMATE, "activation_function", given, f"one of {known}")
    inner, width = described.get("n_inner"), described["n_embd"]
    require(inner in (None, 4 * width), "n_inner", inner, f"4 * n_embd = {4 * width}")
    for key, wanted in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        require(described.get(key, wanted) is wanted, key, described.get(key), str(wanted).lower())
    require(described.get("tie_word_embeddings", True), "tie_word_embeddings", False, "true")
    return described, tensors
