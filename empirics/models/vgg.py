"""VGG without normalisation, for images of any size: nothing in it is scale-invariant."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empirics.models.classifier import Classifier
from empirics.models.resnet import initialise
from theory.errors import require, whole
from theory.serialize import serializable


@serializable
@dataclass(frozen=True)
class VGGConfig:
    """Shape of a VGG with one linear layer on top (Simonyan & Zisserman, arXiv 1409.1556; 16: blocks (2, 2, 3, 3, 3)).

    Example:
        >>> sum(p.numel() for p in VGGConfig(width=8, blocks=(1, 1, 1)).build(seed=0).parameters())
        6218
    """

    width: int = 64
    """Channels of the first stage; each further stage doubles them, up to eight times, and halves the image."""
    blocks: tuple[int, ...] = (2, 2, 3, 3, 3)
    """3x3 convolutions a stage."""
    num_classes: int = 10
    """Number of logits."""
    in_channels: int = 1
    """Channels of an image: 1 grey, 3 colour."""

    def __post_init__(self) -> None:
        for field in ("width", "num_classes", "in_channels"):
            object.__setattr__(self, field, whole(field, getattr(self, field), low=1))
        require(len(self.blocks) > 0, "blocks", self.blocks, "one number a stage, such as (1, 1, 1)")
        object.__setattr__(self, "blocks", tuple(whole("blocks", count, low=1) for count in self.blocks))

    def build(self, seed: int) -> VGG:
        """Build the model on the CPU.

        Args:
            seed: Seed of the initialisation; the same seed gives bitwise the same weights.

        Returns:
            The model, in training mode.

        Raises:
            InputError: If the seed is not a whole number >= 0.
        """
        return VGG(self, generator=torch.Generator().manual_seed(whole("seed", seed)))


class VGG(Classifier):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, config: VGGConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**stage, 8) for stage in range(len(config.blocks))]
        channels = [config.in_channels, *(w for w, n in zip(widths, config.blocks, strict=True) for _ in range(n))]
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights when built; ours replace them
            self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
            self.head = nn.Linear(channels[-1], config.num_classes)
        ends = [sum(config.blocks[: i + 1]) for i in range(len(config.blocks))]
        self.pooled_after = frozenset(end - 1 for end in ends)
        initialise(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits.

        Args:
            images: Standardised pixels, shape (B, in_channels, H, W).

        Returns:
            Logits, shape (B, num_classes).
        """
        x = images
        for number, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            if number in self.pooled_after and min(x.shape[-2:]) > 1:
                x = F.max_pool2d(x, 2)
        return self.head(x.mean(dim=(2, 3)))
