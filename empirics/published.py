"""The published experiments on weight decay with their hyper-parameters, each at three scales.

Source: D'Angelo et al., "Why do we need weight decay in modern deep learning?", arXiv 2310.04415. `paper` is their run;
`gpu` is the same network for minutes on one 80 GB card, `cpu` one small enough for a minute or two on a laptop. Shorter
language models decay more, so that lr * weight_decay * steps stays 3. Times at the scales gpu and paper are estimates:
these runs have not been made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from empirics.config import TrainConfig
from empirics.data import ImageData, PixelData, TextData
from empirics.models import GPT2Config, PreActResNetConfig, ResNetConfig, VGGConfig
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.schedules import Constant, Cosine, Piecewise

Scale = Literal["cpu", "gpu", "paper"]

SCALES = ("cpu", "gpu", "paper")
DECAY_TIME = 3.0
"""lr * weight_decay * steps of the published language models: 6e-4 * 0.1 * 50,000."""
CIFAR = 50_000
"""Training images of CIFAR-10 and CIFAR-100."""
DIGITS = 1_000
"""Training images of noisy digits."""


def gpt2_124m(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """GPT-2 Small on OpenWebText with blocks of 1,024 tokens: AdamW, 50,000 steps of 256 sequences, bf16.

    Its 13.1 billion tokens are more than the 9 billion of OpenWebText: at scale paper, windows are drawn with
    replacement (`TextData.replacement`), as in the original; `gpu` visits each once.

    Args:
        scale: paper, gpu (2,000 steps of 64 sequences) or cpu (two layers of width 64, blocks of 64, Python sources).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.

    Example:
        >>> config = gpt2_124m(scale="paper")
        >>> config.optimizer.weight_decay, config.micro_batch, config.steps, config.data.replacement
        (0.1, 16, 50000, True)
    """
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024}
    small = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64}
    batch = {"paper": 256, "gpu": 64, "cpu": 8}
    again = scale == "paper"
    return language_model(
        "gpt2_124m", shape, small, scale=scale, seed=seed, accumulate=16, batch=batch, replacement=again
    )


def gpt2_124m_block256(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """The same on blocks of 256 tokens, 8 micro-batches of 32.

    Args:
        scale: paper, gpu (2,000 steps) or cpu (blocks of 16).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 256}
    small = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 16}
    batch = {"paper": 256, "gpu": 256, "cpu": 32}
    return language_model("gpt2_124m_block256", shape, small, scale=scale, seed=seed, accumulate=8, batch=batch)


def gpt2_micro(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """A GPT-2 of 4 layers of width 192 on blocks of 256 tokens; what is not stated of it is as in gpt2_124m_block256.

    Args:
        scale: paper, gpu (2,000 steps) or cpu (two layers of width 32, 512 token ids, blocks of 64).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    shape = {"n_layer": 4, "n_head": 4, "n_embd": 192, "block_size": 256}
    small = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64, "vocab_size": 512}
    return language_model(
        "gpt2_micro", shape, small, scale=scale, seed=seed, accumulate=8, batch={"paper": 256, "gpu": 256, "cpu": 16}
    )


def resnet18_cifar10(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """ResNet-18 with BatchNorm on CIFAR-10: plain SGD, lr 0.08, decay 0.0125 on all tensors, no augmentation.

    Args:
        scale: paper (1,000 epochs), gpu (60 epochs) or cpu (noisy digits).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.

    Example:
        >>> resnet18_cifar10(scale="paper").steps
        390000
    """
    large = ResNetConfig(width=64, blocks=(2, 2, 2, 2), in_channels=3)
    return vision("resnet18_cifar10", large, ResNetConfig(), SGD(0.08, weight_decay=0.0125), scale=scale, seed=seed)


def resnet34_cifar100(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """Pre-activation ResNet-34 on CIFAR-100: lr 0.15, decay 0.01; the rest as in `resnet18_cifar10`.

    Args:
        scale: paper, gpu or cpu (noisy digits).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    large = PreActResNetConfig(width=64, blocks=(3, 4, 6, 3), num_classes=100, in_channels=3)
    optimizer = SGD(0.15, weight_decay=0.01)
    return vision(
        "resnet34_cifar100", large, PreActResNetConfig(), optimizer, source="cifar100", scale=scale, seed=seed
    )


def vgg16_cifar10(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """VGG-16 without normalisation on CIFAR-10: lr 0.1, decay 0.008; the rest as in `resnet18_cifar10`.

    Args:
        scale: paper, gpu or cpu (noisy digits).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    large, small = VGGConfig(in_channels=3), VGGConfig(width=8, blocks=(1, 1, 1))
    return vision("vgg16_cifar10", large, small, SGD(0.1, weight_decay=0.008), scale=scale, seed=seed)


def resnet18_scale_invariant(*, scale: Scale = "cpu", seed: int = 0) -> TrainConfig:
    """The scale-invariant ResNet-18 on CIFAR-10, every tensor kept at norm 1: lr 0.001, no decay, 100 epochs.

    Args:
        scale: paper, gpu (20 epochs) or cpu (noisy digits).
        seed: Seed of initialisation and data order.

    Returns:
        The configuration.
    """
    large = ResNetConfig(width=64, blocks=(2, 2, 2, 2), in_channels=3, scale_invariant=True)
    small = ResNetConfig(scale_invariant=True)
    epochs = {"paper": 100, "gpu": 20, "cpu": 60}
    return vision(
        "resnet18_scale_invariant", large, small, SGD(0.001), scale=scale, seed=seed, epochs=epochs, fixed_norm=1.0
    )


def language_model(
    name: str,
    shape: dict[str, Any],
    small: dict[str, Any],
    *,
    scale: Scale,
    seed: int,
    accumulate: int,
    batch: dict[str, int],
    replacement: bool = False,
) -> TrainConfig:
    """A GPT-2 under the published recipe: AdamW (0.9, 0.95), cosine to a tenth, clip 1, decay of matrices.

    Args:
        name: The experiment's name.
        shape: Fields of the published GPT2Config.
        small: Those of the one for the scale cpu.
        scale: cpu, gpu or paper.
        seed: Seed of initialisation and data order.
        accumulate: Micro-batches of a published step.
        batch: Sequences a step, by scale.
        replacement: Whether OpenWebText's windows are drawn with replacement.

    Returns:
        The configuration.

    Raises:
        InputError: If the scale is unknown.
    """
    check(scale)
    run = f"{name}-{scale}-seed{seed}"
    if scale == "cpu":
        model, steps, lr = GPT2Config(**{"vocab_size": 1024, **small}), 4_000, 1e-2
        data = TextData(vocab_size=model.vocab_size, block_size=model.block_size, order_seed=seed)
        return TrainConfig(
            name=run,
            model=model,
            data=data,
            optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=DECAY_TIME / (lr * steps)),
            schedule=Cosine(warmup=100, final=0.1),
            steps=steps,
            batch_size=batch[scale],
            grad_clip=1.0,
            seed=seed,
        )
    steps, lr = (50_000 if scale == "paper" else 2_000), 6e-4
    micro = batch["paper"] // accumulate
    return TrainConfig(
        name=run,
        model=GPT2Config(vocab_size=50_304, **shape),
        data=TextData(
            source="openwebtext",
            vocab_size=50_257,
            block_size=shape["block_size"],
            order_seed=seed,
            replacement=replacement,
        ),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=round(DECAY_TIME / (lr * steps), 12)),
        schedule=Cosine(warmup=400 if scale == "paper" else 100, final=0.1),
        steps=steps,
        batch_size=batch[scale],
        accumulate=batch[scale] // micro,
        grad_clip=1.0,
        seed=seed,
        precision="bf16",
        rotation_every=100,
        eval_every=1_000,
        checkpoint_every=1_000,
        keep_every=10_000,
    )


def vision(
    name: str,
    large: ResNetConfig | VGGConfig,
    small: ResNetConfig | VGGConfig,
    optimizer: SGD,
    *,
    scale: Scale,
    seed: int,
    source: str = "cifar10",
    epochs: dict[str, int] | None = None,
    **fields: Any,
) -> TrainConfig:
    """A network for images under the published recipe: plain SGD, after half of the epochs at learning rate 1e-4.

    Args:
        name: The experiment's name.
        large: The published network.
        small: That for noisy digits, at the scale cpu.
        optimizer: Learning rate and decay (of all tensors); ResNets on noisy digits have 0.3 and 0.03 instead, where
            the small set-ups' effect was found.
        scale: cpu, gpu or paper.
        seed: Seed of initialisation and data order.
        source: The published data.
        epochs: By scale, at one learning rate; the published 1,000, and fewer below, with the drop, if omitted.
        **fields: Further fields of the configuration.

    Returns:
        The configuration.

    Raises:
        InputError: If the scale is unknown.
    """
    check(scale)
    if scale == "cpu" and epochs is None and not isinstance(small, VGGConfig):
        optimizer = SGD(0.3, weight_decay=0.03)
    count = (epochs or {"paper": 1_000, "gpu": 60, "cpu": 75})[scale]
    images, batch = (DIGITS, 32) if scale == "cpu" else (CIFAR, 128)
    epoch = images // batch
    steps, last = count * epoch, 0.003 if scale == "cpu" else 1e-4
    # noisy digits have to be erased after they are learnt: most of the time before the drop, as in the other figures
    drop = 60 * epoch if scale == "cpu" else steps // 2
    data = ImageData(source="digits", noise_seed=seed, order_seed=seed)
    if scale != "cpu":  # uint8 on the device; the original does not augment
        data = PixelData(source=source, train=CIFAR, flip=False, crop=0, order_seed=seed)
    return TrainConfig(
        name=f"{name}-{scale}-seed{seed}",
        model=small if scale == "cpu" else large,
        data=data,
        optimizer=optimizer,
        schedule=Constant() if epochs else Piecewise(knots=((0, 1.0), (drop, last / optimizer.lr))),
        steps=steps,
        batch_size=batch,
        decay="all",
        seed=seed,
        precision="auto" if scale == "cpu" else "bf16",
        rotation_every=epoch,
        eval_every=0 if scale == "cpu" else 10 * epoch,
        checkpoint_every=500 if scale == "cpu" else 10 * epoch,
        **fields,
    )


def check(scale: str) -> None:
    """Raise `InputError` if a scale is unknown."""
    if scale not in SCALES:
        raise InputError(f"scale = {scale!r} is not allowed: it must be one of {', '.join(SCALES)}.")


PUBLISHED: dict[str, Callable[..., TrainConfig]] = {
    "gpt2_124m": gpt2_124m,
    "gpt2_124m_block256": gpt2_124m_block256,
    "gpt2_micro": gpt2_micro,
    "resnet18_cifar10": resnet18_cifar10,
    "resnet34_cifar100": resnet34_cifar100,
    "vgg16_cifar10": vgg16_cifar10,
    "resnet18_scale_invariant": resnet18_scale_invariant,
}
"""By the name that the command line takes."""
