"""Training with a prediction written first, and the audit of what is to be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from bridge.describe import audit, describe
from empirics.config import TrainConfig
from empirics.extras import Extras, optimizer_of
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
    scheduled, spec = config.optimizer.decay is Decay.SCHEDULED, unscheduled(config.optimizer)
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


def audit_run(config: TrainConfig, root: Path | str = ".") -> pd.DataFrame:
    """What acts on which parameter of a run of our own trainer, as it is before step 0.

    Args:
        config: The run; nothing is trained.
        root: Folder of run directories, where it follows another run.

    Returns:
        As `bridge.describe.audit`: peak rates; where the run follows another one (match, twin), those of its step 0.
        Beside Muon, each tensor with the optimizer that trains it; groups are counted over both.

    Raises:
        InputError: If the data cannot be read, or a run that it follows is missing or does not fit.
    """
    model, data = config.model.build(config.seed), config.data.open()
    optimizer = optimizer_of(config, model)
    if config.match or config.twin:
        Extras(config, model, optimizer, data, root).set_rates(0)
    batch = tuple(x[: config.micro_batch] for x in data.batch(0, config.batch_size))
    parts = optimizer.parts if isinstance(optimizer, Joint) else (optimizer,)
    table, before = pd.DataFrame(), 0
    for part, spec in zip(parts, (config.optimizer, config.others), strict=False):
        found = audit(model, part, spec=unscheduled(spec), loss_fn=batch_loss, batch=batch)
        if spec is not None and spec.decay is Decay.SCHEDULED:
            found.loc[found["decayed"] == "yes", "convention"] = Decay.SCHEDULED.value
        mine = found["group"] != "none"
        found.loc[mine, "group"] = [str(before + int(number)) for number in found.loc[mine, "group"]]
        before += len(part.param_groups)
        table = found if table.empty else table.where(~mine, found)
    return table


def unscheduled(optimizer: Any) -> Any:
    """An optimizer whose decay follows a schedule of its own, with decay that follows the learning rate instead."""
    if optimizer is None or optimizer.decay is not Decay.SCHEDULED:
        return optimizer
    return replace(optimizer, decay=Decay.DECOUPLED)
