"""The small language model that the figures share, so that equal runs are trained once."""

from __future__ import annotations

from empirics.config import TrainConfig
from empirics.data import TextData
from empirics.models import GPT2Config
from theory.optimizers import AdamW
from theory.schedules import Cosine, WarmupStableDecay

WARMUP = 100
"""Steps of warm-up."""
VOCABULARY = 512
BLOCK = 64


def xs(
    schedule: Cosine | WarmupStableDecay, lr: float, weight_decay: float, seed: int, *, steps: int, eval_every: int
) -> TrainConfig:
    """XS: a GPT-2 with 2 layers of width 32, 512 token ids, blocks of 64, batches of 16, one pass of Python sources.

    Only the standard library's sources are read (7 M tokens), so that equal interpreters have equal data; every 20th
    file is held out and validation reads 4,096 of its windows.

    Args:
        schedule: Shape of the learning rate; its kind becomes part of the run's name.
        lr: Peak learning rate.
        weight_decay: Decay of all matrices and embeddings; gains are not decayed.
        seed: Seed of initialisation and data order; runs with equal seeds see the same batches.
        steps: Length of the run.
        eval_every: Steps between evaluations.

    Returns:
        The configuration.

    Example:
        >>> xs(Cosine(warmup=100, final=0.1), 0.016, 0.03, 3, steps=4_000, eval_every=1_000).name
        'xs-cosine-lr0.016-wd0.03-seed3'
    """
    kind = "cosine" if isinstance(schedule, Cosine) else "wsd"
    return TrainConfig(
        name=f"xs-{kind}-lr{lr:g}-wd{weight_decay:g}-seed{seed}",
        model=GPT2Config(vocab_size=VOCABULARY, block_size=BLOCK, n_layer=2, n_head=2, n_embd=32),
        data=TextData(vocab_size=VOCABULARY, block_size=BLOCK, val_windows=4_096, order_seed=seed),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay),
        schedule=schedule,
        steps=steps,
        batch_size=16,
        grad_clip=1.0,
        seed=seed,
        rotation_every=50,
        eval_every=eval_every,
        checkpoint_every=0,
        keep_checkpoints=1,
    )
