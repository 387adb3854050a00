"""Named experiments: plain functions that return the configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.models import GPT2Config, ResNetConfig
from empirics.published import PUBLISHED
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.schedules import Cosine, Piecewise

DIGITS_EPOCH = 31
"""Steps in an epoch of noisy digits: 1,000 images in batches of 32, the last partial batch dropped."""
DIGITS_CONSTANT = 60 * DIGITS_EPOCH
"""Steps at constant learning rate."""
DIGITS_DROP = 15 * DIGITS_EPOCH
"""Steps after the drop."""


def gpt2_medium_text(*, weight_decay: float = 0.05, seed: int = 0) -> TrainConfig:
    """The same for one GPU: 6 layers of width 256, blocks of 256, 2,048 token ids, the installed packages too.

    Args:
        weight_decay: Decay of all matrices and embeddings; gains are not decayed.
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    small = gpt2_small_text(weight_decay=weight_decay, seed=seed)
    return replace(
        small,
        name=f"gpt2-medium-wd{weight_decay:g}-seed{seed}",
        model=GPT2Config(vocab_size=2048, block_size=256, n_layer=6, n_head=4, n_embd=256),
        data=TextData(
            source="python", packages=True, vocab_size=2048, block_size=256, val_windows=4_096, order_seed=seed
        ),
        batch_size=32,
    )


def gpt2_small_text(*, weight_decay: float = 0.05, seed: int = 0) -> TrainConfig:
    """A small GPT-2 on the interpreter's own sources: one pass, AdamW, warm-up and cosine to a tenth.

    lr * weight_decay * steps is 3, as in the original set-up (50,000 steps at 6e-4 with decay 0.1), and the equilibrium
    angle at the peak is 7 mrad: small enough for the laws, large enough to get there within 6,000 steps.

    Args:
        weight_decay: Decay of all matrices and embeddings; gains are not decayed.
        seed: Seed of initialisation and data order; runs with equal seeds see the same batches.

    Returns:
        The configuration.
    """
    return TrainConfig(
        name=f"gpt2-wd{weight_decay:g}-seed{seed}",
        model=GPT2Config(vocab_size=1024, block_size=64, n_layer=2, n_head=2, n_embd=64),
        data=TextData(
            source="python", vocab_size=1024, block_size=64, heldout_every=4, val_windows=4_096, order_seed=seed
        ),
        optimizer=AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=weight_decay),
        schedule=Cosine(warmup=100, final=0.1),
        steps=6_000,
        batch_size=8,
        grad_clip=1.0,
        seed=seed,
        rotation_every=10,
        checkpoint_every=1_000,
    )


def resnet_noisy_digits(
    *, lr: float = 0.3, weight_decay: float = 0.03, scale_invariant: bool = False, seed: int = 0
) -> TrainConfig:
    """A BatchNorm ResNet on digits with 30 % label noise: plain SGD, 60 epochs at constant rate, 15 at 0.003.

    Args:
        lr: Learning rate of the constant part.
        weight_decay: L2 coefficient, on all trainable tensors.
        scale_invariant: BatchNorm without gain and bias and a frozen head.
        seed: Seed of initialisation, label noise and data order.

    Returns:
        The configuration.
    """
    kind = "-invariant" if scale_invariant else ""
    return TrainConfig(
        name=f"digits{kind}-lr{lr:g}-wd{weight_decay:g}-seed{seed}",
        model=ResNetConfig(scale_invariant=scale_invariant),
        data=ImageData(source="digits", noise_seed=seed, order_seed=seed),
        optimizer=SGD(lr=lr, weight_decay=weight_decay),
        schedule=Piecewise(knots=((0, 1.0), (DIGITS_CONSTANT, 0.003 / lr))),
        steps=DIGITS_CONSTANT + DIGITS_DROP,
        batch_size=32,
        decay="all",
        seed=seed,
        rotation_every=1,
        checkpoint_every=500,
    )


EXPERIMENTS: dict[str, Callable[..., TrainConfig]] = {
    "gpt2_small_text": gpt2_small_text,
    "gpt2_medium_text": gpt2_medium_text,
    "gpt2_small_text_undecayed": lambda **options: gpt2_small_text(weight_decay=0.0, **options),
    "resnet_noisy_digits": resnet_noisy_digits,
    "resnet_noisy_digits_undecayed": lambda **options: resnet_noisy_digits(weight_decay=0.0, **options),
    "resnet_noisy_digits_invariant": lambda **options: resnet_noisy_digits(scale_invariant=True, **options),
    **PUBLISHED,
}
"""By the name that the command line takes."""


def experiment(name: str, *, seed: int = 0, scale: str = "cpu") -> TrainConfig:
    """Look up a named experiment.

    Args:
        name: One of `EXPERIMENTS`.
        seed: Its seed.
        scale: cpu, gpu or paper; the latter two only of the published ones (`empirics.published`).

    Returns:
        The configuration.

    Raises:
        InputError: If there is none of that name, or not at this scale.

    Example:
        >>> experiment("resnet_noisy_digits").optimizer.weight_decay
        0.03
    """
    if name not in EXPERIMENTS:
        raise InputError(f"experiment = {name!r} is not allowed: it must be one of {', '.join(EXPERIMENTS)}.")
    if name in PUBLISHED:
        return PUBLISHED[name](seed=seed, scale=scale)
    if scale != "cpu":
        names = ", ".join(PUBLISHED)
        raise InputError(f"scale = {scale!r} is not allowed: {name} has the scale cpu only; {names} have others.")
    return EXPERIMENTS[name](seed=seed)


def validation(*, seed: int = 0, scale: str = "cpu") -> dict[str, TrainConfig]:
    """The runs of the main job, longest first.

    Args:
        seed: Seed of all of them.
        scale: cpu or gpu (a larger GPT-2).

    Returns:
        Configurations by their role.

    Raises:
        InputError: If the scale is unknown.
    """
    if scale not in ("cpu", "gpu"):
        raise InputError(f"scale = {scale!r} is not allowed: it must be cpu or gpu.")
    language_model = gpt2_small_text if scale == "cpu" else gpt2_medium_text
    return {
        "lm-decayed": language_model(seed=seed),
        "lm-undecayed": language_model(weight_decay=0.0, seed=seed),
        "vision-decayed": resnet_noisy_digits(seed=seed),
        "vision-undecayed": resnet_noisy_digits(weight_decay=0.0, seed=seed),
        "vision-invariant": resnet_noisy_digits(scale_invariant=True, seed=seed),
    }
