"""GPT-2 with nanoGPT's parameter names, and a switch that makes every matrix scale-invariant."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from theory.errors import finite, require, whole
from theory.serialize import serializable

# Shape suffixes: B batch, T tokens, H heads, C head size, D embedding, V vocabulary.


@serializable
@dataclass(frozen=True)
class GPT2Config:
    """Shape of a GPT-2 (Radford et al., 2019); the defaults are the 124M model without biases.

    Example:
        >>> model = GPT2Config(vocab_size=1024, block_size=64, n_layer=2, n_head=2, n_embd=64).build(seed=0)
        >>> sum(p.numel() for p in model.parameters())
        168256
    """

    vocab_size: int = 50257
    """Number of token ids."""
    block_size: int = 1024
    """Longest context, in tokens."""
    n_layer: int = 12
    """Number of blocks."""
    n_head: int = 12
    """Attention heads a block; divides n_embd."""
    n_embd: int = 768
    """Width of the residual stream."""
    bias: bool = False
    """Biases in linear maps and LayerNorms, as in the original GPT-2."""
    dropout: float = 0.0
    """Probability of dropping an activation in training."""
    scale_invariant: bool = False
    """Normalise the output of every attention and MLP matrix, so that the loss ignores its scale; excludes bias."""

    def __post_init__(self) -> None:
        for field in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            object.__setattr__(self, field, whole(field, getattr(self, field), low=1))
        finite("dropout", self.dropout, high=1.0)
        require(self.n_embd % self.n_head == 0, "n_embd", self.n_embd, f"a multiple of n_head = {self.n_head}")
        require(not (self.bias and self.scale_invariant), "bias", self.bias, "false in a scale-invariant model")

    def build(self, seed: int) -> GPT2:
        """Build the model on the CPU.

        Args:
            seed: Seed of the initialisation; the same seed gives bitwise the same weights.

        Returns:
            The model, in training mode.

        Raises:
            InputError: If the seed is not a whole number >= 0.
        """
        return GPT2(self, generator=torch.Generator().manual_seed(whole("seed", seed)))


class GPT2(nn.Module):
    """Pre-LN decoder with tied embedding and head: tokens (B, T) -> logits (B, T, V)."""

    def __init__(self, config: GPT2Config, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights when built; ours replace them
            self.transformer = Transformer(config)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        initialise(self, generator)

    def forward(self, tokens_BxT: Tensor) -> Tensor:
        """Next-token logits.

        Args:
            tokens_BxT: Token ids, int64, T <= block_size.

        Returns:
            Logits, shape (B, T, V).

        Raises:
            InputError: If the sequence is longer than the model's context.
        """
        return self.lm_head(self.transformer(tokens_BxT))

    def loss(self, tokens_BxT: Tensor, targets_BxT: Tensor) -> Tensor:
        """Mean cross-entropy per token.

        Args:
            tokens_BxT: Token ids.
            targets_BxT: The token that follows each of them.

        Returns:
            Scalar, in nats.
        """
        return F.cross_entropy(self(tokens_BxT).flatten(0, 1), targets_BxT.flatten())


class Transformer(nn.Module):
    """Embeddings, blocks and the last LayerNorm: tokens (B, T) -> residual stream (B, T, D)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, tokens_BxT: Tensor) -> Tensor:
        """The normalised residual stream after the last block, shape (B, T, D)."""
        length, longest = tokens_BxT.size(1), self.wpe.num_embeddings
        require(length <= longest, "sequence length", length, f"at most block_size = {longest}")
        x_BxTxD = self.drop(self.wte(tokens_BxT) + self.wpe.weight[:length])
        for block in self.h:
            x_BxTxD = block(x_BxTxD)
        return self.ln_f(x_BxTxD)


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """The residual stream after the block, shape (B, T, D)."""
        x_BxTxD = x_BxTxD + self.attn(self.ln_1(x_BxTxD))
        return x_BxTxD + self.mlp(self.ln_2(x_BxTxD))


class Attention(nn.Module):
    """Causal multi-head attention; rows of c_attn are [0:D) Q, [D:2D) K, [2D:3D) V."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.normalise = normalise if config.scale_invariant else nn.Identity()

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """The attention branch, shape (B, T, D)."""
        heads, width = self.config.n_head, self.config.n_embd
        q, k, v = (
            self.normalise(part_BxTxD).unflatten(2, (heads, width // heads)).transpose(1, 2)
            for part_BxTxD in self.c_attn(x_BxTxD).split(width, dim=2)
        )
        dropout = self.config.dropout if self.training else 0.0
        y_BxHxTxC = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y_BxTxD = y_BxHxTxC.transpose(1, 2).flatten(2)
        return self.resid_dropout(self.normalise(self.c_proj(y_BxTxD)))


class MLP(nn.Module):
    """Four times wider, GELU, and back; `approximate` is that of torch's GELU, tanh in OpenAI's weights."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.normalise = normalise if config.scale_invariant else nn.Identity()
        self.approximate = "none"

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """The MLP branch, shape (B, T, D)."""
        hidden_BxTx4D = F.gelu(self.normalise(self.c_fc(x_BxTxD)), approximate=self.approximate)
        return self.dropout(self.normalise(self.c_proj(hidden_BxTx4D)))


def normalise(x: Tensor) -> Tensor:
    """Divide by the RMS of the last axis, without gain; eps only guards against 0/0.

    Args:
        x: Any shape.

    Returns:
        Same shape, RMS 1 along the last axis.
    """
    return F.rms_norm(x, x.shape[-1:], eps=1e-30)


@torch.no_grad()
def initialise(model: GPT2, generator: torch.Generator) -> None:
    """GPT-2's initialisation: N(0, 0.02), residual projections 0.02/sqrt(2 n_layer), gains 1, biases 0.

    Args:
        model: Filled in place.
        generator: The only source of randomness.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            residual = name.endswith("c_proj.weight")
            std = 0.02 / math.sqrt(2 * model.config.n_layer) if residual else 0.02
            parameter.normal_(0.0, std, generator=generator)
