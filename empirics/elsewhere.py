"""An experiment on other data: the `--data` of the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from empirics.config import TrainConfig
from empirics.data import TextData, hub
from empirics.data.text import FOLDERS
from empirics.models import GPT2Config
from theory.errors import require

IMAGES = {"digits": (1, 10), "cifar10": (3, 10), "cifar100": (3, 100)}
"""Channels and classes of the known images."""
DIGITS = 1_000
"""Training images of digits; the other 797 are for the test."""


def on_data(config: TrainConfig, source: str | None) -> TrainConfig:
    """Copy a configuration with other data; a network for images gets their number of channels and classes.

    Args:
        config: A run.
        source: Of a language model: python, openwebtext, wikitext, fineweb-edu, text:DIR, parquet:DIR or bin:DIR, as in
            `TextData`. Of a network for images: digits, cifar10, cifar100 or parquet:DIR, as in `ImageData`. None: the
            configuration's own.

    Returns:
        The configuration. All else stays: steps, batch, learning rate, label noise, and the number of training images,
        where there are so many digits.

    Raises:
        InputError: If there is no such source, or it is not one for this network.

    Example:
        >>> from empirics.experiments import experiment
        >>> config = on_data(experiment("resnet_noisy_digits"), "cifar100")
        >>> config.data.source, config.model.num_classes, config.model.in_channels
        ('cifar100', 100, 3)
    """
    if source is None:
        return config
    kind, _, path = source.partition(":")
    if isinstance(config.data, TextData) or isinstance(config.model, GPT2Config):
        known = source in ("python", *hub.TEXTS) or (kind in FOLDERS and path != "")
        allowed = f"{', '.join(hub.TEXTS)}, python, {', '.join(f'{folder}:DIR' for folder in FOLDERS)}"
        require(known, "data", source, f"{allowed} for a language model")
        text: Any = config.data
        return replace(config, data=replace(text, source=source, packages=text.packages and source == "python"))
    known = source in IMAGES or (kind == "parquet" and path != "")
    require(known, "data", source, f"{', '.join(IMAGES)} or parquet:DIR for a network for images")
    if source == config.data.source:
        return config
    channels, classes = IMAGES.get(source, (config.model.in_channels, config.model.num_classes))
    model: Any = replace(config.model, in_channels=channels, num_classes=classes)
    train = min(config.data.train, DIGITS) if source == "digits" else config.data.train
    return replace(config, model=model, data=replace(config.data, source=source, train=train))
