"""Labelled images with symmetric label noise: scikit-learn's digits, or a CIFAR-like parquet folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from theory.errors import InputError, finite, require, whole
from theory.serialize import serializable

SPLIT, NOISE, ORDER = 1, 2, 3  # one stream of random numbers each


@serializable
@dataclass(frozen=True)
class ImageData:
    """Which images, how many, how noisy, in which order."""

    source: str = "digits"
    """digits (scikit-learn's, 8x8) or parquet:DIR (train*.parquet and test*.parquet with columns img or image, and label)."""
    train: int = 1000
    """Training images; the test images are the rest of the digits, or all of the folder's test files."""
    label_noise: float = 0.3
    """Fraction of the training images whose label is drawn anew, uniform over the classes: it may be wrong or right."""
    image_size: int | None = None
    """Side to which images are pooled by averaging; divides the original side. None: as they are."""
    split_seed: int = 0
    """Seed of the choice of training images."""
    noise_seed: int = 0
    """Seed of the label noise."""
    order_seed: int = 0
    """Seed of the order of each epoch."""

    def __post_init__(self) -> None:
        kind, _, path = self.source.partition(":")
        known = self.source == "digits" or (kind == "parquet" and path != "")
        require(known, "source", self.source, "'digits' or 'parquet:DIR'")
        whole("train", self.train, low=1)
        finite("label_noise", self.label_noise, high=1.0, open_high=False)
        if self.image_size is not None:
            whole("image_size", self.image_size, low=1)
        for field in ("split_seed", "noise_seed", "order_seed"):
            whole(field, getattr(self, field))

    def open(self, cache: Path | None = None) -> Images:
        """Read, split, pool, standardise and add the label noise.

        Args:
            cache: Not used: reading is fast. Here because every source has it.

        Returns:
            The images, in memory.

        Raises:
            InputError: If the source cannot be read or has too few images.
        """
        kind, _, path = self.source.partition(":")
        read = _digits if kind == "digits" else lambda chosen: _parquet(Path(path), chosen)
        (train, labels), (test, test_labels) = read(self._choose)
        train, test = self._pool(train), self._pool(test)
        classes = int(max(labels.max(), test_labels.max())) + 1
        rng = np.random.default_rng((self.noise_seed, NOISE))
        noisy = rng.permutation(self.train)[: round(self.label_noise * self.train)]
        labels[noisy] = torch.from_numpy(rng.integers(classes, size=len(noisy)))
        return Images(self, train, labels, test, test_labels, classes)

    def _choose(self, there: int) -> NDArray[np.int64]:
        """A seeded permutation of the images there are; its first `train` are the training images."""
        require(self.train <= there, "train", self.train, f"at most {there}, the images of source {self.source!r}")
        return np.random.default_rng((self.split_seed, SPLIT)).permutation(there)

    def _pool(self, images: Tensor) -> Tensor:
        if self.image_size is None:
            return images
        side = images.shape[-1]
        require(side % self.image_size == 0, "image_size", self.image_size, f"a divisor of the images' side, {side}")
        return F.avg_pool2d(images, side // self.image_size)


class Images:
    """Opened images: standardised pixels, float32 (N, C, H, W), and labels, int64 (N,); the training labels are noisy."""

    def __init__(
        self, config: ImageData, train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int
    ) -> None:
        self.config, self.num_classes = config, num_classes
        self.train_labels, self.test_labels = labels, test_labels
        self.hash = _hash(train, labels, test, test_labels)
        """SHA-256 of raw pixels and labels, hexadecimal: the same on every machine."""
        std, mean = torch.std_mean(train, dim=(0, 2, 3), keepdim=True, correction=0)
        self.train_images, self.test_images = (train - mean) / std, (test - mean) / std
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def tokens_per_step(self, batch_size: int) -> int:
        """Images that the model is trained on in one step.

        Args:
            batch_size: Images a step.

        Returns:
            batch_size.
        """
        return batch_size

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps in one epoch; the last partial batch is dropped.

        Args:
            batch_size: Images a step.

        Returns:
            Number of steps, 31 for 1,000 images in batches of 32.
        """
        return len(self.train_labels) // batch_size

    def check(self, steps: int, batch_size: int) -> None:
        """Make sure that one batch fits into the training images; epochs are not limited.

        Args:
            steps: Length of the run.
            batch_size: Images a step.

        Raises:
            InputError: If it does not.
        """
        whole("steps", steps)
        whole("batch_size", batch_size, low=1)
        there = len(self.train_labels)
        require(batch_size <= there, "batch_size", batch_size, f"at most {there}, the training images")

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """The images of one step, a pure function of configuration and step.

        Args:
            step: Step index, from 0.
            batch_size: Images a step.

        Returns:
            Images (batch_size, C, H, W) and labels (batch_size,).

        Raises:
            InputError: If the batch is larger than the training set.
        """
        self.check(step, batch_size)
        epoch, index = divmod(step, self.steps_per_epoch(batch_size))
        chosen = self._order(epoch)[index * batch_size : (index + 1) * batch_size]
        return self.train_images[chosen], self.train_labels[chosen]

    def validation(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The clean test images, in a fixed order.

        Args:
            batch_size: Images a batch; the last batch may be smaller.

        Yields:
            Images and labels.
        """
        whole("batch_size", batch_size, low=1)
        yield from zip(self.test_images.split(batch_size), self.test_labels.split(batch_size), strict=True)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.config.order_seed, epoch, ORDER))
            self._epoch = epoch, rng.permutation(len(self.train_labels))
        return self._epoch[1]


def _digits(choose) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from sklearn.datasets import load_digits
