"""Training with a prediction written first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bridge.describe import describe
from empirics.config import TrainConfig
from empirics.joint import Joint
from theory.optimizers import Decay
from theory.predict import predict
from theory.prediction import Prediction


def batch_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Loss of one of our own models on a batch.

    Args:
        model: A `GPT2` or `ResNet`, or any module with such a `loss` method.
        batch: Inputs and targets.

    Returns:
        Scalar loss, nats.
    """
    loss: Any = model.loss
    return loss(*batch)


def predict_run(model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> Prediction:
    """Predict a run of our own trainer, before its first step: the `predict` argument of `empirics.train.train`.

    Args:
        model: The initialised model.
        optimizer: Its optimizer.
        config: The run.

    Returns:
        The prediction; scale invariance is tested numerically on the first micro-batch. Beside Muon, what another
        optimizer trains is left out.
    """
    device = next(model.parameters()).device
    inputs, targets = (x[: config.micro_batch].to(device) for x in config.data.open().batch(0, config.batch_size))
    scheduled = config.optimizer.decay is Decay.SCHEDULED
    spec: Any = replace(config.optimizer, decay=Decay.DECOUPLED) if scheduled else config.optimizer  # pyright: ignore
    recipe = describe(
        model,
        optimizer.parts[0] if isinstance(optimizer, Joint) else optimizer,
        schedule=config.schedule,
        steps=config.steps,
        spec=spec,
        loss_fn=batch_loss,
        batch=(inputs, targets),
    )
    if scheduled:
        recipe = replace(recipe, optimizer=config.optimizer, weight_decay_schedule=config.weight_decay_schedule)
    return predict(recipe)
