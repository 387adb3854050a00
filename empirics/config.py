"""The whole configuration of a training run: frozen, checked, hashed by content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from empirics import optimizers
from empirics.data import ImageData, TextData
from empirics.models import GPT2Config, ResNetConfig
from theory.errors import finite, require, whole
from theory.optimizers import SGD, Adam, AdamW
from theory.recipe import Group, Recipe
from theory.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Piecewise,
    WarmupStableDecay,
)
from theory.serialize import content_hash, serializable


@serializable
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Example:
        >>> config = TrainConfig(
        ...     name="digits", model=ResNetConfig(), data=ImageData(), optimizer=SGD(lr=0.3), steps=310, batch_size=32
        ... )
        >>> config.directory.startswith("digits-")
        True
    """

    name: str
    """Name of the run: the first part of its directory's name."""
    model: GPT2Config | ResNetConfig
    """The network."""
    data: TextData | ImageData
    """What it is trained on."""
    optimizer: SGD | Adam | AdamW
    """Optimizer with its peak learning rate and weight decay."""
    schedule: Constant | Linear | Cosine | InverseSqrt | WarmupStableDecay | Piecewise = field(default_factory=Constant)
    """Shape of the learning rate."""
    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Windows or images a step."""
    grad_clip: float = 0.0
    """Largest total gradient norm; 0: no clipping."""
    decay: Literal["matrices", "all"] = "matrices"
    """Which tensors decay: those with two or more dimensions (nanoGPT's rule), or all."""
    seed: int = 0
    """Seed of the initialisation and of dropout."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the forward pass: bf16 is autocast, weights stay float32. auto: bf16 on CUDA, float32 elsewhere."""
    compile: bool | None = None
    """Whether to use torch.compile; None: on CUDA only."""
    threads: int = 1
    """CPU threads."""
    rotation_every: int = 10
    """Norms and angles are measured every so many steps; 0: never."""
    loss_every: int = 1
    """The loss is recorded every so many steps."""
    flush_every: int = 50
    """Measurements are fetched from the device and written every so many steps."""
    eval_every: int = 0
    """Evaluate every so many steps; 0: only at the end."""
    checkpoint_every: int = 500
    """Save a checkpoint every so many steps; 0: only at the end."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep."""

    def __post_init__(self) -> None:
        name = isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", self.name)
        require(bool(name), "name", self.name, "letters, digits and . _ = + -, beginning with a letter or digit")
        for key, kinds in KINDS.items():
            names = ", ".join(kind.__name__ for kind in kinds)
            require(isinstance(getattr(self, key), kinds), key, getattr(self, key), f"one of {names}")
        for key, low in COUNTS.items():
            object.__setattr__(self, key, whole(key, getattr(self, key), low=low))
        object.__setattr__(self, "grad_clip", finite("grad_clip", self.grad_clip))
        require(self.decay in ("matrices", "all"), "decay", self.decay, "'matrices' or 'all'")
        allowed = ("auto", "float32", "bf16")
        require(self.precision in allowed, "precision", self.precision, f"one of {', '.join(allowed)}")
        require(self.compile in (None, True, False), "compile", self.compile, "true, false or None")
        optimizers.check(self.optimizer)
        Recipe(self.optimizer, self.schedule, self.steps, (Group("any", (1,)),))  # its checks are this run's, too
        self._check_data()

    def _check_data(self) -> None:
        model, data = self.model, self.data
        if isinstance(model, GPT2Config):
            require(isinstance(data, TextData), "data", data, "TextData for a language model")
        else:
            require(isinstance(data, ImageData), "data", data, "ImageData for a ResNet")
        if isinstance(model, GPT2Config) and isinstance(data, TextData):
            size, vocabulary = data.block_size, data.vocab_size
            allowed = f"at most model.block_size = {model.block_size}"
            require(size <= model.block_size, "data.block_size", size, allowed)
            allowed = f"at most model.vocab_size = {model.vocab_size}"
            require(vocabulary <= model.vocab_size, "data.vocab_size", vocabulary, allowed)

    @property
    def hash(self) -> str:
        """SHA-256 of the contents."""
        return content_hash(self)

    @property
    def directory(self) -> str:
        """Name of the run directory, <name>-<hash8>."""
        return f"{self.name}-{self.hash[:8]}"


KINDS = {
    "model": (GPT2Config, ResNetConfig),
    "data": (TextData, ImageData),
    "optimizer": (SGD, Adam, AdamW),
    "schedule": (Constant,),
}
COUNTS = {
    "steps": 1,
    "batch_size": 1,
    "seed": 0,
    "threads": 1,
    "rotation_every": 0,
    "loss_every": 1,
    "flush_every": 1,
    "eval_every": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
}
