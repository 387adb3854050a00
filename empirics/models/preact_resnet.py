"""The pre-activation ResNet: BatchNorm and ReLU before each convolution, the stream itself never normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empirics.models.classifier import Classifier
from empirics.models.resnet import ResNetConfig, batch_norm, conv, initialise
from theory.errors import whole
from theory.serialize import serializable


@serializable
@dataclass(frozen=True)
class PreActResNetConfig(ResNetConfig):
    """Shape of a pre-activation ResNet (He et al., arXiv 1603.05027; 34: width 64, blocks (3, 4, 6, 3)).

    With `scale_invariant` the stream starts from a normalised image and ends in a BatchNorm, and no BatchNorm has gain
    or bias; a convolution whose output is added to the stream is then scale-invariant only together with the others
    that write into it, so single tensors are not.

    Example:
        >>> sum(p.numel() for p in PreActResNetConfig().build(seed=0).parameters())
        19714
    """

    def build(self, seed: int) -> PreActResNet:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Build the model on the CPU.

        Args:
            seed: Seed of the initialisation; the same seed gives bitwise the same weights.

        Returns:
            The model, in training mode.

        Raises:
            InputError: If the seed is not a whole number >= 0.
        """
        return PreActResNet(self, generator=torch.Generator().manual_seed(whole("seed", seed)))


class PreActResNet(Classifier):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, config: PreActResNetConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**stage for stage in range(len(config.blocks))]
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights when built; ours replace them
            self.conv = conv(config.in_channels, config.width, size=3)
            self.stages = nn.ModuleList()
            for stage, count in enumerate(config.blocks):
                inputs = [widths[max(stage - 1, 0)]] + [widths[stage]] * (count - 1)
                strides = [1 if stage == 0 else 2] + [1] * (count - 1)
                pairs = zip(inputs, strides, strict=True)
                self.stages.append(nn.Sequential(*(PreActBlock(config, n, widths[stage], stride=s) for n, s in pairs)))
            self.bn = batch_norm(config, widths[-1])
            self.head = nn.Linear(widths[-1], config.num_classes)
        initialise(self, generator)
        self.head.requires_grad_(not config.scale_invariant)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits.

        Args:
            images: Standardised pixels, shape (B, in_channels, H, W).

        Returns:
            Logits, shape (B, num_classes).
        """
        x = self.conv(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(F.relu(self.bn(x)).mean(dim=(2, 3)))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, beside a shortcut from the first activation."""

    def __init__(self, config: ResNetConfig, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = batch_norm(config, inputs)
        self.conv1 = conv(inputs, outputs, size=3, stride=stride)
        self.bn2 = batch_norm(config, outputs)
        self.conv2 = conv(outputs, outputs, size=3)
        self.shortcut = conv(inputs, outputs, size=1, stride=stride) if inputs != outputs or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """The stream after the block, shape (B, outputs, H/stride, W/stride)."""
        y = F.relu(self.bn1(x))
        stream = x if self.shortcut is None else self.shortcut(y)
        return stream + self.conv2(F.relu(self.bn2(self.conv1(y))))
