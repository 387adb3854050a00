"""Conversions between conventions of decay, and rules of transfer, put to real optimizers."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

import theory
from empirics.optimizers import build_optimizer, set_rates
from paper.laws.demonstration import Demonstration, pair
from theory.optimizers import SGD, AdamW, Decay


def _shrink(optimizer: AdamW | SGD, shape: float) -> float:
    """What one step of the real optimizer without gradient takes from a weight of one."""
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    real = build_optimizer(optimizer, model)
    set_rates(real, optimizer, shape)
    model.weight.grad = torch.zeros_like(model.weight)
    real.step()
    return 1 - model.weight.item()


def convert_decay(seed: int) -> Demonstration:
    """One real step in each convention."""
    del seed
    x, lr_max, value, pairs = np.array([0.05, 0.2, 0.5, 1.0]), 0.1, 0.3, []
    for target in (Decay.INDEPENDENT, Decay.CORRECTED, Decay.COUPLED):
        law, seen = [], []
        for shape in x:
            lr = lr_max * float(shape)
            law.append(lr * value)
            converted = theory.convert_decay(value, "decoupled", target.value, lr, lr_max).value
            if target is Decay.INDEPENDENT:  # an optimizer's own coefficient is the peak's and follows the schedule
                converted /= float(shape)
            optimizer = (
                SGD(lr_max, weight_decay=converted)
                if target is Decay.COUPLED
                else AdamW(lr_max, weight_decay=converted, decay=target)
            )
            seen.append(_shrink(optimizer, float(shape)))
        pairs.append(pair(f"as {target.value}", "shrink per step", law, seen, bar=1e-9))
    return Demonstration(
        "convert_decay",
        "Decoupled decay 0.3 converted at each learning rate and handed to the real optimizer (torch.optim.AdamW, or "
        "SGD for coupled decay): what a step without gradient takes from a weight.",
        "learning rate over its peak",
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


_RULES: dict[str, tuple[Callable[[float], Mapping[str, Any]], Callable[[float, Mapping[str, Any]], float]]] = {
    # what changes by a factor k, and what the rule keeps, from the shrink per step and the sizes
    "constant_epochs": (
        lambda k: {"batch_size": 128 * k},
        lambda shrink, s: s["batch_size"] / (shrink * s["dataset_size"]),
    ),
    "constant_fraction": (lambda k: {"steps": 1000 * k}, lambda shrink, s: 1 / (shrink * s["steps"])),
    "tokens_per_parameter": (
        lambda k: {"steps": 1000 * k},
        lambda shrink, s: (s["steps"] / 1000) ** 0.527 / (shrink * s["steps"]),
    ),
    "constant_rotation": (lambda k: {"width": 256 * k}, lambda shrink, s: 1 / shrink),
    "sqrt_width": (lambda k: {"width": 256 * k}, lambda shrink, s: 1 / (shrink * s["width"] ** 0.5)),
}


def transfer(seed: int) -> Demonstration:
    """What each rule keeps, with the decay that torch.optim.AdamW shows."""
    del seed
    have = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 128, "steps": 1000, "width": 256, "dataset_size": 50_000}
    x, pairs = np.array([0.25, 0.5, 2.0, 4.0, 16.0]), []
    for rule, (change, kept) in _RULES.items():
        reference, seen = kept(_shrink(AdamW(1e-3, weight_decay=0.1), 1.0), have), []
        for k in x:
            want = change(float(k))
            advice = theory.transfer(have, want, rule)
            shrink = _shrink(AdamW(advice.lr, weight_decay=advice.weight_decay), 1.0)
            seen.append(kept(shrink, {**have, **want}) / reference)
        pairs.append(pair(rule, "what the rule keeps, after over before", np.ones(len(x)), seen, bar=1e-9))
    return Demonstration(
        "transfer",
        "Batch, steps or width times a factor: the quantity that each rule keeps, from the shrink that "
        "torch.optim.AdamW shows at the advised setting, over that at the present one.",
        "factor",
        x,
        tuple(pairs),
        log_x=True,
        note="This checks the rules' arithmetic; whether a rule is right for a network is an empirical question.",
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {f.__name__: f for f in (convert_decay, transfer)}
