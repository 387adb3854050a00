"""Labelled images with symmetric label noise: scikit-learn's digits, CIFAR, or a CIFAR-like parquet folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from empirics.data import hub
from empirics.data.image_files import decode, digits, encoded
from empirics.data.ranks import share
from theory.errors import finite, require, whole
from theory.serialize import serializable

SPLIT, NOISE, ORDER = 1, 2, 3  # one stream of random numbers each


@serializable
@dataclass(frozen=True)
class ImageData:
    """Which images, how many, how noisy, in which order."""

    source: str = "digits"
    """digits (scikit-learn's, 8x8), cifar10, cifar100 (through datasets) or parquet:DIR (train*.parquet, test*.parquet;
    columns img or image, and label or fine_label)."""
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
        known = self.source == "digits" or self.source in hub.IMAGES or (kind == "parquet" and path != "")
        require(known, "source", self.source, f"'digits', {', '.join(map(repr, hub.IMAGES))} or 'parquet:DIR'")
        finite("label_noise", self.label_noise, high=1.0, open_high=False)
        lows = {"train": 1, "image_size": 1, "split_seed": 0, "noise_seed": 0, "order_seed": 0}
        for field, low in lows.items():
            if getattr(self, field) is not None or field != "image_size":
                object.__setattr__(self, field, whole(field, getattr(self, field), low=low))

    def open(self, cache: Path | None = None) -> Images:
        """Read, split, pool, standardise and add the label noise.

        Args:
            cache: Not used: so few images are read quickly. Here because every source has it.

        Returns:
            The images, in memory.

        Raises:
            InputError: If the source cannot be read or has too few images.
        """
        train, labels, test, test_labels, classes = self._read(cache)
        train, test = self._pool(train.float()), self._pool(test.float())
        return Images(self, train, labels, test, test_labels, classes)

    def _read(self, cache: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Pixels (uint8) and labels of the training and the test set, label noise added, and the number of classes."""
        if self.source == "digits":
            pixels, there = digits()
            order = self._shuffled(len(pixels))
            chosen, rest = order[: self.train], order[self.train :]
            train, labels, test, test_labels = pixels[chosen], there[chosen], pixels[rest], there[rest]
        else:
            files, there = encoded(self.source, "train")
            chosen = self._shuffled(len(files))[: self.train]
            train, labels = self._decode(files, chosen, cache), there[chosen]
            test_files, test_labels = encoded(self.source, "test")
            test = self._decode(test_files, np.arange(len(test_files)), cache)
        require(len(test) > 0, "train", self.train, "smaller, so that test images are left")
        classes = int(max(labels.max(), test_labels.max())) + 1
        rng = np.random.default_rng((self.noise_seed, NOISE))
        noisy = rng.permutation(self.train)[: round(self.label_noise * self.train)]
        labels[noisy] = torch.from_numpy(rng.integers(classes, size=len(noisy)))
        return train, labels, test, test_labels, classes

    def _decode(self, files: list[bytes], chosen: NDArray[np.int64], cache: Path | None) -> Tensor:
        return decode([files[index] for index in chosen])

    def _shuffled(self, there: int) -> NDArray[np.int64]:
        require(self.train <= there, "train", self.train, f"at most {there}, the images of source {self.source!r}")
        return np.random.default_rng((self.split_seed, SPLIT)).permutation(there)

    def _pool(self, images: Tensor) -> Tensor:
        if self.image_size is None:
            return images
        side = images.shape[-1]
        require(side % self.image_size == 0, "image_size", self.image_size, f"a divisor of the images' side, {side}")
        return F.avg_pool2d(images, side // self.image_size)


class Images:
    """Opened images: standardised pixels, float32 (N, C, H, W), and int64 labels (N,), noisy in the training set."""

    def __init__(
        self, config: ImageData, train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int
    ) -> None:
        self.config, self.num_classes = config, num_classes
        self.train_labels, self.test_labels = labels, test_labels
        self.hash = _hash(train, labels, test, test_labels)
        """SHA-256 of the pixels before standardisation and of the labels, hexadecimal."""
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._keep(train, test)

    @property
    def train_images(self) -> Tensor:
        """Standardised training images."""
        return self._train

    @property
    def test_images(self) -> Tensor:
        """Standardised test images."""
        return self._test

    def to(self, device: torch.device | str) -> Self:
        """Move the whole data set to a device; batches then are made there.

        Args:
            device: The device.

        Returns:
            Itself.
        """
        self.train_labels, self.test_labels = self.train_labels.to(device), self.test_labels.to(device)
        self._train, self._test = self._train.to(device), self._test.to(device)
        return self

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
        return self.part(step, batch_size, rank=0, world=1)

    def part(self, step: int, batch_size: int, *, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """The images of one step that one of many processes trains on; no two see the same ones.

        Args:
            step: Step index, from 0.
            batch_size: Images a step, of all processes together.
            rank: This process, from 0.
            world: Number of processes; divides batch_size. See `empirics.data.ranks.share`.

        Returns:
            As from `batch`, batch_size / world of them: ranks in order give the whole batch.

        Raises:
            InputError: As `batch`, or if the batch cannot be divided.
        """
        self.check(step, batch_size)
        mine = share(batch_size, rank=rank, world=world)
        epoch, index = divmod(step, self.steps_per_epoch(batch_size))
        chosen = self._index(self._order(epoch)[index * batch_size : (index + 1) * batch_size][mine])
        return self._inputs(chosen, step, batch_size, mine), self.train_labels[chosen]

    def validation(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The clean test images, in a fixed order.

        Args:
            batch_size: Images a batch; the last batch may be smaller.

        Yields:
            Images and labels.
        """
        whole("batch_size", batch_size, low=1)
        for images, labels in zip(self._test.split(batch_size), self.test_labels.split(batch_size), strict=True):
            yield self._standardised(images), labels

    def _keep(self, train: Tensor, test: Tensor) -> None:
        std, mean = torch.std_mean(train, dim=(0, 2, 3), keepdim=True, correction=0)
        self._train, self._test = (train - mean) / std, (test - mean) / std

    def _standardised(self, images: Tensor) -> Tensor:
        return images  # they are kept so

    def _inputs(self, chosen: Tensor, step: int, batch_size: int, mine: slice) -> Tensor:
        return self._train[chosen]

    def _index(self, values: NDArray[Any]) -> Tensor:
        """Small arrays on the images' device, without waiting for it."""
        tensor, device = torch.from_numpy(values), self.train_labels.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.config.order_seed, epoch, ORDER))
            self._epoch = epoch, rng.permutation(len(self.train_labels))
        return self._epoch[1]


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
