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
    """digits (scikit-learn's, 8x8) or parquet:DIR (train*.parquet, test*.parquet; columns img or image, and label)."""
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
        finite("label_noise", self.label_noise, high=1.0, open_high=False)
        lows = {"train": 1, "image_size": 1, "split_seed": 0, "noise_seed": 0, "order_seed": 0}
        for field, low in lows.items():
            if getattr(self, field) is not None or field != "image_size":
                object.__setattr__(self, field, whole(field, getattr(self, field), low=low))

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
        if kind == "digits":
            pixels, digits = _digits()
            order = self._shuffled(len(pixels))
            chosen, rest = order[: self.train], order[self.train :]
            train, labels, test, test_labels = pixels[chosen], digits[chosen], pixels[rest], digits[rest]
        else:
            files, all_labels = _parquet(Path(path), "train")
            chosen = self._shuffled(len(files))[: self.train]
            train, labels = _decode([files[index] for index in chosen]), all_labels[chosen]
            test_files, test_labels = _parquet(Path(path), "test")
            test = _decode(test_files)
        require(len(test) > 0, "train", self.train, "smaller, so that test images are left")
        train, test = self._pool(train), self._pool(test)
        classes = int(max(labels.max(), test_labels.max())) + 1
        rng = np.random.default_rng((self.noise_seed, NOISE))
        noisy = rng.permutation(self.train)[: round(self.label_noise * self.train)]
        labels[noisy] = torch.from_numpy(rng.integers(classes, size=len(noisy)))
        return Images(self, train, labels, test, test_labels, num_classes=classes)

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


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float().unflatten(1, (1, 8, 8)), torch.from_numpy(labels).long()


def _parquet(folder: Path, split: str) -> tuple[list[bytes], Tensor]:
    """Encoded images and labels of all files DIR/<split>*.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{split}*.parquet"))
    require(bool(files), "source", f"parquet:{folder}", f"a folder with {split}*.parquet files")
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files])
        column = next(name for name in ("img", "image") if name in table.column_names)
        return [image["bytes"] for image in table[column].to_pylist()], torch.tensor(table["label"].to_pylist())
    except (OSError, pa.ArrowException, KeyError, StopIteration, TypeError) as error:
        reason = str(error) or "there is no column img or image"
        raise InputError(f"{files[0]} cannot be read as images (columns img or image, and label): {reason}.") from None


def _decode(files: list[bytes]) -> Tensor:
    """Pixels 0 .. 255 as float32, (N, 1 or 3, H, W)."""
    from PIL import Image, UnidentifiedImageError

    try:
        images = [Image.open(io.BytesIO(file)) for file in files]
        pixels = np.stack(
            [np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB")) for image in images]
        )
    except (UnidentifiedImageError, OSError, ValueError) as error:  # not an image; truncated; of different sizes
        raise InputError(f"The images cannot be decoded: {error}.") from None
    images = torch.from_numpy(pixels).float()
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
