"""Models: short, readable, each with a scale-invariant switch."""

from empirics.models.gpt2 import GPT2, GPT2Config
from empirics.models.resnet import ResNet, ResNetConfig

__all__ = ["GPT2", "GPT2Config", "ResNet", "ResNetConfig"]
