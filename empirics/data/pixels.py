"""Images kept as one uint8 tensor, on the device if there is room, and augmented there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from empirics.data.cache import cached, default_cache
from empirics.data.image_files import decode
from empirics.data.images import ImageData, Images
from theory.errors import require, whole
from theory.serialize import serializable

AUGMENTATION = 4  # stream of random numbers, behind those of images.py


@serializable
@dataclass(frozen=True)
class PixelData(ImageData):
    """As `ImageData`, for data sets of CIFAR's size and more: uint8 pixels, and the usual augmentation.

    What is drawn for a step is a function of the seed and the step alone, on every device and however many processes
    share the batch, so a resumed run sees the same images.
    """

    source: str = "cifar10"
    """As in `ImageData`."""
    train: int = 50_000
    """Training images; the test images are all of the test set."""
    label_noise: float = 0.0
    """As in `ImageData`."""
    flip: bool = True
    """Mirror every other image, at random."""
    crop: int = 4
    """Pad by so many black pixels on each side and crop to the old size, at random; 0: no."""
    cutout: int = 0
    """Side of a square, at a random place and cut at the edges, that is set to the mean; 0: none."""
    augment_seed: int = 0
    """Seed of the augmentation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(isinstance(self.flip, bool), "flip", self.flip, "true or false")
        for field in ("crop", "cutout", "augment_seed"):
            object.__setattr__(self, field, whole(field, getattr(self, field)))
        require(self.image_size is None, "image_size", self.image_size, "None: these pixels are not pooled")

    def open(self, cache: Path | None = None) -> Pixels:
        """Read, split and add the label noise.

        Args:
            cache: Folder for decoded pixels; $DECAYLAB_CACHE or ~/.cache/decaylab if omitted.

        Returns:
            The images, on the CPU; `Pixels.to` moves them.

        Raises:
            InputError: If the source cannot be read or has too few images.
        """
        return Pixels(self, *self._read(cache))

    def _decode(self, files: list[bytes], chosen: NDArray[np.int64], cache: Path | None) -> Tensor:
        key = hashlib.sha256()
        for file in files:
            key.update(hashlib.sha256(file).digest())
        path = (cache or default_cache()) / f"pixels-{key.hexdigest()[:16]}.safetensors"
        payload = cached(path, lambda: safetensors.torch.save({"pixels": decode(files)}))
        return safetensors.torch.load(payload)["pixels"][chosen]


class Pixels(Images):
    """Opened images: one uint8 tensor (N, C, H, W) each for training and test, standardised where they are used."""

    config: PixelData

    @property
    def train_images(self) -> Tensor:
        """Standardised training images, without augmentation, float32; made at each call."""
        return self._standardised(self._train)

    @property
    def test_images(self) -> Tensor:
        """Standardised test images, float32; made at each call."""
        return self._standardised(self._test)

    def to(self, device: torch.device | str) -> Pixels:
        """Move the whole data set to a device; batches then are made there.

        Args:
            device: The device.

        Returns:
            Itself.
        """
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return super().to(device)

    def _keep(self, train: Tensor, test: Tensor) -> None:
        self._train, self._test = train, test
        count = train.numel() // train.shape[1]
        chunks = [chunk.long() for chunk in train.split(1024)]  # sums of whole numbers: exact in any order
        total = torch.stack([chunk.sum((0, 2, 3)) for chunk in chunks]).sum(0).double()
        squares = torch.stack([chunk.square().sum((0, 2, 3)) for chunk in chunks]).sum(0).double()
        mean = total / count
        std = (squares / count - mean.square()).sqrt()
        self._mean, self._std = mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)

    def _standardised(self, images: Tensor) -> Tensor:
        return (images.float() - self._mean) / self._std

    def _inputs(self, chosen: Tensor, step: int, batch_size: int, mine: slice) -> Tensor:
        config, images = self.config, self._train[chosen]
        height, width = images.shape[-2:]
        rng = np.random.default_rng((config.augment_seed, step, AUGMENTATION))
        drawn = rng.random((batch_size, 5))[mine]  # all five always, so that one choice does not move the others
        if config.crop or config.flip:
            shift = (drawn[:, 1:3] * (2 * config.crop + 1)).astype(np.int64)
            rows = shift[:, :1] + np.arange(height)
            columns = shift[:, 1:] + np.arange(width)
            if config.flip:
                columns = np.where(drawn[:, :1] < 0.5, columns[:, ::-1], columns)
            padded = F.pad(images, (config.crop,) * 4)
            one, two, three = (self._index(x) for x in (np.arange(len(images)), rows, np.ascontiguousarray(columns)))
            images = padded[one[:, None, None], :, two[:, :, None], three[:, None, :]].permute(0, 3, 1, 2).contiguous()
        inputs = self._standardised(images)
        if config.cutout:
            corner = (drawn[:, 3:] * (height, width)).astype(np.int64) - config.cutout // 2
            hidden = [
                ((corner[:, i, None] <= np.arange(side)) & (np.arange(side) < corner[:, i, None] + config.cutout))
                for i, side in enumerate((height, width))
            ]
            rows, columns = (self._index(x) for x in hidden)
            inputs = inputs.masked_fill((rows[:, None, :, None] & columns[:, None, None, :]), 0.0)
        return inputs
