"""The small vision set-ups that the figures share, so that equal runs are trained once."""

from __future__ import annotations

from dataclasses import replace

from empirics.config import TrainConfig
from empirics.data import ImageData
from empirics.experiments import DIGITS_EPOCH, resnet_noisy_digits
from empirics.models import ResNetConfig
from theory.errors import InputError
from theory.optimizers import SGD
from theory.schedules import Piecewise

SEEDS = (3, 4, 5)
"""Seeds of every committed run; the exploratory runs behind the bounds had others."""
LR_AFTER = 0.003
"""Learning rate after the drop."""
CIFAR = "parquet:cifar10"
"""Stands for CIFAR-10 in configurations until `located` says where it is."""
SIDE = 16
"""Side to which CIFAR images are pooled."""
CIFAR_EPOCH = 125
"""Steps in an epoch of 4,000 CIFAR images in batches of 32."""


def noisy_digits(
    lr: float, weight_decay: float, seed: int, *, train: int = 1_000, eval_every: int = 5 * DIGITS_EPOCH
) -> TrainConfig:
    """Noisy digits: 60 epochs at constant learning rate, 15 at 0.003, evaluated along the way.

    Args:
        lr: Learning rate of the constant part.
        weight_decay: L2 coefficient, on all tensors.
        seed: Seed of initialisation, label noise and data order.
        train: Number of training images; steps stay the same.
        eval_every: Steps between evaluations; divides the constant part, so that one comes just before the drop.

    Returns:
        The configuration.

    Example:
        >>> noisy_digits(0.3, 0.03, 3).steps
        2325
    """
    config = resnet_noisy_digits(lr=lr, weight_decay=weight_decay, seed=seed)
    size = "" if train == config.data.train else f"-n{train}"  # pyright: ignore[reportAttributeAccessIssue] - images
    return replace(
        config,
        name=config.name.replace("digits", f"digits{size}"),
        data=replace(config.data, train=train),
        eval_every=eval_every,
        rotation_every=DIGITS_EPOCH,
        checkpoint_every=0,
        keep_checkpoints=1,
    )


def cifar(
    lr: float,
    weight_decay: float,
    seed: int,
    *,
    train: int = 4_000,
    steps: int = 62 * CIFAR_EPOCH,
    drop: int = 50 * CIFAR_EPOCH,
    eval_every: int = 5 * CIFAR_EPOCH,
    label_noise: float = 0.0,
) -> TrainConfig:
    """CIFAR-10 pooled to 16x16, the same network as for digits; by default CIFAR-4k, 50 + 12 epochs.

    Args:
        lr: Learning rate before the drop.
        weight_decay: L2 coefficient, on all tensors.
        seed: Seed of everything: the choice of training images, initialisation, data order, label noise.
        train: Number of training images.
        steps: Steps in all.
        drop: Step at which the learning rate drops to 0.003.
        eval_every: Steps between evaluations; 0: only at the end.
        label_noise: Fraction of labels drawn anew.

    Returns:
        The configuration.
    """
    return TrainConfig(
        name=f"cifar-n{train}-lr{lr:g}-wd{weight_decay:g}-seed{seed}",
        model=ResNetConfig(in_channels=3),
        data=ImageData(
            source=CIFAR,
            train=train,
            label_noise=label_noise,
            image_size=SIDE,
            split_seed=seed,
            noise_seed=seed,
            order_seed=seed,
        ),
        optimizer=SGD(lr=lr, weight_decay=weight_decay),
        schedule=Piecewise(knots=((0, 1.0), (drop, LR_AFTER / lr))),
        steps=steps,
        batch_size=32,
        decay="all",
        seed=seed,
        rotation_every=CIFAR_EPOCH,
        eval_every=eval_every,
        checkpoint_every=0,
        keep_checkpoints=1,
    )


def located(config: TrainConfig, data: str | None) -> TrainConfig:
    """Say where a run's images are.

    Args:
        config: A run, of embedded data or of `CIFAR`.
        data: Where CIFAR-10 is, parquet:DIR.

    Returns:
        The run that can be trained; of embedded data, as it is.

    Raises:
        InputError: If the run needs CIFAR-10 and nobody said where it is.
    """
    if config.data.source != CIFAR:
        return config
    if data is None:
        raise InputError(f"data = None is not allowed: {config.name} needs CIFAR-10, given as parquet:DIR.")
    return replace(config, data=replace(config.data, source=data))


def seconds(config: TrainConfig) -> float:
    """About how long a run takes on one AVX2 core, with its evaluations.

    Args:
        config: The run.

    Returns:
        Seconds; right within a factor of two on the machines that were seen.
    """
    evaluations = 1 + (config.steps // config.eval_every if config.eval_every else 0)
    if isinstance(config.data, ImageData):
        side = config.data.image_size or 8
        step = 4.5e-3 + config.batch_size * side**2 * 4e-7
        return 4 + config.steps * step + evaluations * (0.4 + config.data.train * side**2 * 1.5e-6)
    sizes = config.model
    parameters = 12 * sizes.n_layer * sizes.n_embd**2 + sizes.vocab_size * sizes.n_embd  # pyright: ignore
    flops = 6 * parameters * config.batch_size * config.data.block_size  # pyright: ignore
    return 5 + config.steps * (8e-3 + flops * 2e-11) + 5 * evaluations
