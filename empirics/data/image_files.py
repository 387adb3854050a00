"""Where labelled images come from: scikit-learn's digits, CIFAR through `datasets`, or a folder of parquet files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from empirics.data import hub
from theory.errors import InputError, require

COLUMNS = ("img", "image")
LABELS = ("label", "fine_label")


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits.

    Returns:
        Pixels 0 .. 16, uint8, (1797, 1, 8, 8), and labels, int64.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images.astype(np.uint8)).unflatten(1, (1, 8, 8)), torch.from_numpy(labels).long()


def encoded(source: str, split: str) -> tuple[list[bytes], Tensor]:
    """Images as they are stored, PNG or JPEG, and their labels.

    Args:
        source: cifar10, cifar100 or parquet:DIR.
        split: train or test.

    Returns:
        Images, and labels, int64.

    Raises:
        InputError: If they cannot be read or reached.
    """
    _, _, path = source.partition(":")
    return _parquet(Path(path), split) if path else _from_hub(source, split)


def decode(files: Sequence[bytes]) -> Tensor:
    """Decode images.

    Args:
        files: PNG, JPEG and the like, all of one size.

    Returns:
        Pixels 0 .. 255, uint8, (N, 1 or 3, H, W).

    Raises:
        InputError: If one is no image or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        images = [Image.open(io.BytesIO(file)) for file in files]
        pixels = np.stack(
            [np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB")) for image in images]
        )
    except (UnidentifiedImageError, OSError, ValueError) as error:  # not an image; truncated; of different sizes
        raise InputError(f"The images cannot be decoded: {error}.") from None
    tensor = torch.from_numpy(pixels)
    return tensor.unsqueeze(1) if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def _from_hub(source: str, split: str) -> tuple[list[bytes], Tensor]:
    rows = hub.load(source, split)
    from datasets import Image

    column, label = _names(rows.column_names)
    rows = rows.select_columns([column, label]).cast_column(column, Image(decode=False))
    return [image["bytes"] for image in rows[column]], torch.tensor(list(rows[label]))


def _parquet(folder: Path, split: str) -> tuple[list[bytes], Tensor]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{split}*.parquet"))
    require(bool(files), "source", f"parquet:{folder}", f"a folder with {split}*.parquet files")
    try:
        table: Any = pa.concat_tables([pq.read_table(file) for file in files])
        column, label = _names(table.column_names)
        return [image["bytes"] for image in table[column].to_pylist()], torch.tensor(table[label].to_pylist())
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise InputError(
            f"{files[0]} cannot be read as images (columns img or image, and label or fine_label): {reason}."
        ) from None


def _names(columns: Sequence[str]) -> tuple[str, str]:
    found = []
    for names in (COLUMNS, LABELS):
        name = next((name for name in names if name in columns), None)
        if name is None:
            raise KeyError(f"there is no column {' or '.join(names)}")
        found.append(name)
    return found[0], found[1]
