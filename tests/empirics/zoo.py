"""Tiny networks with the constructs of real ones, and batches for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.resnet18 import BasicBlock
from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.hessian import CrossEntropy


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES = random(4, 3, 16, 16)
GREY = random(4, 1, 8, 8)
VECTORS = random(5, 4)
TOKENS = torch.randint(13, (3, 6), generator=torch.Generator().manual_seed(0))


class VGG(nn.Module):
    """Convolutions with biases, pooling, dropout in the head, no BatchNorm."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class ResNet(nn.Module):
    """torchvision's: 7x7 stem with stride, max-pooling, BasicBlocks, in-place ReLUs."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = BasicBlock(4, 4, 1), BasicBlock(4, 6, 2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.layer2(self.layer1(x)), 1), 1))


class Conv1D(nn.Module):
    """Hugging Face's: a linear map with its weight the other way round."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(random(inputs, outputs) / math.sqrt(inputs)),
            nn.Parameter(torch.zeros(outputs)),
        )

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Attention(nn.Module):
    def __init__(self, width, heads, *, causal, fused):
        super().__init__()
        self.num_heads, self.causal = heads, causal
        self.c_attn = Conv1D(3 * width, width) if fused else nn.ModuleList(nn.Linear(width, width) for _ in "qkv")
        self.c_proj = Conv1D(width, width)

    def forward(self, x):
        fused = isinstance(self.c_attn, Conv1D)
        qkv = self.c_attn(x).split(x.size(-1), 2) if fused else [matrix(x) for matrix in self.c_attn]
        q, k, v = (y.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for y in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.c_proj(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width, *, causal, fused):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, 2, causal=causal, fused=fused)
        self.mlp = nn.Sequential(Conv1D(2 * width, width), nn.GELU(approximate="tanh"), Conv1D(width, 2 * width))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = x + self.drop(self.attn(self.ln_1(x)))
        return x + self.drop(self.mlp(self.ln_2(x)))


class LikeHuggingFaceGPT2(nn.Module):
    """Conv1D, learned positions, a tied head, `logits` in what it returns."""

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(13, 4), nn.Embedding(8, 4)
        self.h, self.ln_f = nn.ModuleList([Block(4, causal=True, fused=True)]), nn.LayerNorm(4)
        self.lm_head = nn.Linear(4, 13, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids):
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.size(1))[None])
        for block in self.h:
            x = block(x)
        return {"logits": self.lm_head(self.ln_f(x))}


class LikeHuggingFaceViT(nn.Module):
    """Patches by a convolution, a class token that is expanded, a table of positions, separate Q, K and V."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.cls_token, self.position_embeddings = nn.Parameter(random(1, 1, 4)), nn.Parameter(random(1, 5, 4))
        self.block, self.norm, self.head = Block(4, causal=False, fused=False), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.position_embeddings
        return self.head(self.norm(self.block(x))[:, 0])


class Twice(nn.Module):
    """A matrix used twice, once transposed, a gain of its own, and an RMSNorm written by hand."""

    def __init__(self):
        super().__init__()
        self.inner, self.gain, self.head = nn.Linear(4, 4), nn.Parameter(1 + 0.1 * random(4)), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.inner(x)) @ self.inner.weight + self.inner(x)
        return self.head(self.gain * x * x.square().mean(-1, keepdim=True).rsqrt())


class SharedConvolution(nn.Module):
    """A convolution used twice, GroupNorm, dilation and groups, a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.GroupNorm(3, 3)
        self.grouped = nn.Conv2d(3, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=3)
        self.up, self.act, self.head = nn.ConvTranspose2d(6, 2, 3, stride=2), nn.PReLU(), nn.Linear(2, 3)

    def forward(self, x):
        x = self.act(self.norm(self.conv(torch.relu(self.conv(x)))))
        return self.head(self.up(self.grouped(x)).mean((2, 3)))


class TimeFirst(nn.Module):
    """torch's own encoder with time in front of the batch, read at its last step."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x.flatten(2).unflatten(2, (-1, 4))[:, 0].transpose(0, 1))[-1])


class WeightNorm(nn.Module):
    """A matrix that is computed from two parameters."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x)))


class Unknown(nn.Module):
    """A parameter inside an operation that has no formula."""

    def __init__(self):
        super().__init__()
        self.first, self.bend = nn.Linear(4, 3), nn.Parameter(torch.tensor([1.2, 0.7, 1.0]))

    def forward(self, x):
        return torch.atan2(self.first(x), self.bend)


@dataclass(frozen=True)
class Member:
    """A network of the zoo."""

    build: Callable[[], nn.Module]
    batch: Any
    """Inputs."""
    layers: bool = True
    """Whether the Jacobian goes layer by layer."""

    def __call__(self):
        """The network, in training mode, with random numbers of its own and running statistics that are not 0 and 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build()
            with torch.no_grad():
                for _ in range(5):
                    run(model, self.batch)
                for p in model.parameters():
                    p.add_(0.1 * torch.randn_like(p))  # no gain is 1, no bias 0
        return model

    @property
    def loss_batch(self):
        """Inputs and targets."""
        logits = run(self().eval(), self.batch)
        targets = torch.arange(logits[..., 0].numel()).view(logits.shape[:-1]) % logits.shape[-1]
        return self.batch, targets


def run(model, batch):
    """Logits."""
    outputs = model(**batch) if isinstance(batch, dict) else model(batch)
    return outputs["logits"] if isinstance(outputs, dict) else getattr(outputs, "logits", outputs)


LOSS = CrossEntropy(lambda model, batch: (run(model, batch[0]), batch[1]))


def frozen():
    model = ResNet()
    model.conv1.requires_grad_(False)
    model.layer1.bn1.requires_grad_(False)
    model.layer2.requires_grad_(False)
    return model


def gpt2(**options):
    return lambda: GPT2Config(vocab_size=13, block_size=6, n_layer=1, n_head=2, n_embd=4, **options).build(seed=0)


def huggingface_gpt2():
    from transformers import GPT2Config as Config
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel(Config(vocab_size=13, n_positions=8, n_embd=4, n_layer=1, n_head=2))


def huggingface_vit():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=3))


ZOO = {
    "our GPT-2, tied": Member(gpt2(bias=True, dropout=0.1), TOKENS),
    "our GPT-2, scale-invariant": Member(gpt2(scale_invariant=True), TOKENS),
    "our ResNet": Member(lambda: ResNetConfig(width=2, blocks=(1, 1), num_classes=3).build(seed=0), GREY),
    "VGG": Member(VGG, IMAGES),
    "ResNet-18's blocks": Member(ResNet, IMAGES),
    "a frozen part": Member(frozen, IMAGES),
    "like Hugging Face's GPT-2": Member(LikeHuggingFaceGPT2, {"input_ids": TOKENS}),
    "like Hugging Face's ViT": Member(LikeHuggingFaceViT, IMAGES),
    "a matrix used twice": Member(Twice, VECTORS),
    "a convolution used twice": Member(SharedConvolution, IMAGES[:, :, :8, :8]),
    "torch's encoder, time first": Member(TimeFirst, IMAGES[:, :, :4, :4]),
    "weight norm": Member(WeightNorm, VECTORS),
    "an operation without a formula": Member(Unknown, VECTORS, layers=False),
    "Hugging Face's GPT-2": Member(huggingface_gpt2, {"input_ids": TOKENS}),
    "Hugging Face's ViT": Member(huggingface_vit, {"pixel_values": IMAGES}),
}
