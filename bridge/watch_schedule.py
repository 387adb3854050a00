"""What a torch scheduler is going to do, found by running a copy of it on a stand-in for the optimizer."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from theory.errors import InputError

Array = NDArray[np.float64]


def rates_ahead(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> Array:
    """Learning rates of the coming steps, if the scheduler is stepped once after each.

    The copy shares nothing with the scheduler that it could change: wherever the original refers to the optimizer, the
    copy refers to a stand-in with the groups' rates and one number for parameters.

    Args:
        scheduler: A torch.optim.lr_scheduler of this optimizer (or a wrapper with the scheduler as `scheduler`).
        optimizer: The optimizer.
        steps: How many steps.

    Returns:
        Shape (steps, groups).

    Raises:
        InputError: If the scheduler needs more than the number of steps (a loss, say), or ends before.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> rates_ahead(scheduler, optimizer, 5)[:, 0].tolist()
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    inner = scheduler
    while not isinstance(inner, torch.optim.lr_scheduler.LRScheduler) and hasattr(inner, "scheduler"):
        inner = inner.scheduler
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    groups = [{**copy.deepcopy(each), "params": [torch.zeros(1)]} for each in settings]
    stand_in = torch.optim.SGD(groups, lr=0.0)
    name = type(inner).__name__
    try:
        twin = copy.deepcopy(inner, {id(optimizer): stand_in})
        rates = np.empty((steps, len(groups)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the stand-in takes no steps, and torch says so
            for step in range(steps):
                rates[step] = [float(group["lr"]) for group in stand_in.param_groups]
                if step + 1 < steps:
                    twin.step()
    except Exception as error:
        raise InputError(f"schedule = {name} cannot be run ahead for {steps} steps ({error}).") from None
    return rates
