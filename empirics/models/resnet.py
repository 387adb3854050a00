"""A CIFAR-style BatchNorm ResNet of any width, and a switch that makes every convolution scale-invariant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from empirics.models.classifier import Classifier
from theory.errors import finite, require, whole
from theory.serialize import serializable


@serializable
@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a CIFAR-style ResNet (He et al., arXiv 1512.03385, section 4.2; 1x1 projection shortcuts).

    Example:
        >>> sum(p.numel() for p in ResNetConfig().build(seed=0).parameters())
        19810
    """

    width: int = 8
    """Channels of the first stage; each further stage doubles them and halves the image."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Residual blocks a stage."""
    num_classes: int = 10
    """Number of logits."""
    in_channels: int = 1
    """Channels of an image: 1 grey, 3 colour."""
    scale_invariant: bool = False
    """BatchNorm without gain and bias and a frozen head: the loss ignores the scale of every convolution."""
    bn_eps: float = 1e-5
    """BatchNorm's epsilon; exact scale invariance needs it far below the smallest variance (1e-30)."""

    def __post_init__(self) -> None:
        for field in ("width", "num_classes", "in_channels"):
            object.__setattr__(self, field, whole(field, getattr(self, field), low=1))
        require(len(self.blocks) > 0, "blocks", self.blocks, "one number a stage, such as (1, 1, 1)")
        object.__setattr__(self, "blocks", tuple(whole("blocks", count, low=1) for count in self.blocks))
        require(finite("bn_eps", self.bn_eps) > 0, "bn_eps", self.bn_eps, "a positive number")

    def build(self, seed: int) -> ResNet:
        """Build the model on the CPU.

        Args:
            seed: Seed of the initialisation; the same seed gives bitwise the same weights.

        Returns:
            The model, in training mode.

        Raises:
            InputError: If the seed is not a whole number >= 0.
        """
        return ResNet(self, generator=torch.Generator().manual_seed(whole("seed", seed)))


class ResNet(Classifier):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, config: ResNetConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**stage for stage in range(len(config.blocks))]
        with torch.random.fork_rng(devices=[]):  # layers draw initial weights when built; ours replace them
            self.conv = conv(config.in_channels, config.width, size=3)
            self.bn = batch_norm(config, config.width)
            self.stages = nn.ModuleList()
            for stage, count in enumerate(config.blocks):
                inputs = [widths[max(stage - 1, 0)]] + [widths[stage]] * (count - 1)
                strides = [1 if stage == 0 else 2] + [1] * (count - 1)
                pairs = zip(inputs, strides, strict=True)
                self.stages.append(nn.Sequential(*(Block(config, n, widths[stage], stride=s) for n, s in pairs)))
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
        x = F.relu(self.bn(self.conv(images)))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean(dim=(2, 3)))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; every convolution is followed by BatchNorm."""

    def __init__(self, config: ResNetConfig, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, size=3, stride=stride)
        self.bn1 = batch_norm(config, outputs)
        self.conv2 = conv(outputs, outputs, size=3)
        self.bn2 = batch_norm(config, outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut.add_module("conv", conv(inputs, outputs, size=1, stride=stride))
            self.shortcut.add_module("bn", batch_norm(config, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Activations after the block, shape (B, outputs, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def conv(inputs: int, outputs: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image size (at stride 1), without bias.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        size: Side of the kernel, odd.
        stride: Step of the kernel.

    Returns:
        The layer; its weight has shape (outputs, inputs, size, size).
    """
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


def batch_norm(config: ResNetConfig, channels: int) -> nn.BatchNorm2d:
    """BatchNorm as the configuration wants it.

    Args:
        config: The model's configuration.
        channels: Channels to normalise.

    Returns:
        The layer, without gain and bias if the model is scale-invariant.
    """
    return nn.BatchNorm2d(channels, eps=config.bn_eps, affine=not config.scale_invariant)


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """He's initialisation: convolutions N(0, 2/fan_out), head N(0, 1/fan_in), gains 1, biases 0.

    Args:
        model: Filled in place.
        generator: The only source of randomness.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            outputs, inputs, *kernel = parameter.shape
            variance = 2 / (outputs * kernel[0] * kernel[1]) if kernel else 1 / inputs
            parameter.normal_(0.0, variance**0.5, generator=generator)
