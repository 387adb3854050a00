"""A language model of a few thousand weights on random tokens, for tests of what is around the training."""

from pathlib import Path
from typing import Any

import numpy as np

from empirics.config import TrainConfig
from empirics.data import TextData
from empirics.models import GPT2Config


def tiny(folder: Path, *, tokens: int = 6_000, vocabulary: int = 20, **fields: Any) -> TrainConfig:
    rng = np.random.default_rng(0)
    for name, count in (("train", tokens), ("val", 600)):
        rng.integers(vocabulary, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return TrainConfig(
        name="gpt2",
        model=GPT2Config(vocab_size=vocabulary, block_size=8, n_layer=1, n_head=2, n_embd=16),
        data=TextData(source=f"bin:{folder}", vocab_size=vocabulary, block_size=8, val_windows=16),
        **fields,
    )
