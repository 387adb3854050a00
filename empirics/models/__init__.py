"""Models: short, readable, each with a scale-invariant switch."""

from empirics.models.gpt2 import GPT2, GPT2Config
from empirics.models.preact_resnet import PreActResNet, PreActResNetConfig
from empirics.models.resnet import ResNet, ResNetConfig
from empirics.models.vgg import VGG, VGGConfig

__all__ = ["GPT2", "VGG", "GPT2Config", "PreActResNet", "PreActResNetConfig", "ResNet", "ResNetConfig", "VGGConfig"]
