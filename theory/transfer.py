"""From tuned hyper-parameters to those of another batch, length, data set or width: one rule, one answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from theory.errors import InputError, finite, require

_HAVE = ("lr", "weight_decay", "batch_size", "steps", "width", "dataset_size")
_WANT = ("batch_size", "steps", "width", "dataset_size", "lr", "lr_rule", "tokens_per_parameter_ratio")
TPP_EXPONENT = 0.527
"""Best tau/T falls with tokens per parameter to this power (Bergsma et al., arXiv 2505.13738)."""


@dataclass(frozen=True)
class Advice:
    """What to set, and why."""

    rule: str
    """Name of the rule."""
    lr: float
    """Learning rate."""
    weight_decay: float
    """Decay coefficient of a decoupled optimizer; lr*weight_decay is what an independent decay would be set to."""
    why: str
    """What the rule keeps fixed."""
    source: str
    """Where the rule comes from."""
    limits: str
    """Where it has been seen to hold."""


@dataclass(frozen=True)
class Ratios:
    """Wanted over present: batch, steps, dataset, width, tokens per parameter."""

    batch: float
    steps: float
    dataset: float
    width: float
    tokens_per_parameter: float | None


@dataclass(frozen=True)
class Rule:
    """How lr*weight_decay changes with the ratios."""

    factor: Callable[[Ratios], float]
    why: str
    source: str
    limits: str


def _tokens_per_parameter(k: Ratios) -> float:
    if k.tokens_per_parameter is None:
        raise InputError(
            "want is not allowed: with another width it must give tokens_per_parameter_ratio, because the number of "
            "parameters is not known."
        )
    return k.tokens_per_parameter**TPP_EXPONENT / k.steps


RULES: dict[str, Rule] = {
    "constant_epochs": Rule(
        lambda k: k.batch / k.dataset,
        "keeps the weights' memory in epochs, tau*batch/dataset",
        "Wang & Aitchison, arXiv 2405.13698",
        "several epochs, or one pass at fixed tokens; batch below the critical size; the lr must stay stable",
    ),
    "constant_fraction": Rule(
        lambda k: 1 / k.steps,
        "keeps the weights' memory as a fraction of the run, tau/steps",
        "folklore of one-pass training; Wang & Aitchison, arXiv 2405.13698, at a fixed number of epochs",
        "decays too little in runs that are very much longer",
    ),
    "tokens_per_parameter": Rule(
        _tokens_per_parameter,
        "lets tau/steps fall as tokens per parameter to the power -0.527",
        "Bergsma et al., arXiv 2505.13738",
        "fitted to GPT-2-like models of 111M to 3.3B parameters under muP, 20 to 1000 tokens per parameter",
    ),
    "constant_rotation": Rule(
        lambda k: 1.0,
        "keeps the rotation per step, lr*weight_decay",
        "Kosson et al., arXiv 2305.17212 and 2510.19093",
        "equal numbers of steps",
    ),
    "sqrt_width": Rule(
        lambda k: k.width**-0.5,
        "keeps the gain of a sublayer (top singular value ~ sqrt(lr/weight_decay)*width^0.75)",
        "Fan et al., arXiv 2510.15262",
        "AdamW on the matrices of LLaMA-like models under muP",
    ),
}
LR_RULES: dict[str, Callable[[float], float]] = {"sqrt": math.sqrt, "linear": lambda k: k, "fixed": lambda k: 1.0}


def transfer(have: Mapping[str, Any], want: Mapping[str, Any], rule: str) -> Advice:
    """Learning rate and decoupled weight decay for changed batch, length, data or width, by one rule.

    The learning rate is `want["lr"]`, or the present one times the batch ratio by `lr_rule` (sqrt: the SDE argument for
    Adam, Malladi et al., arXiv 2205.10287; linear: for SGD, Goyal et al., arXiv 1706.02677; fixed) and divided by the
    width ratio (matrices under muP). The rule then sets lr*weight_decay: constant_epochs k_B/k_N, constant_fraction
    1/k_T, tokens_per_parameter k_TPP^0.527/k_T, constant_rotation 1, sqrt_width k_w^(-1/2), k = wanted/present; the
    decay is what is left. Rules disagree: compare them, never average.

    Source: see `RULES`. Exact arithmetic; the rules themselves are empirical within their limits.

    Args:
        have: lr, weight_decay, and whichever of batch_size, steps, width, dataset_size the change needs.
        want: What changes: any of those sizes, lr, lr_rule ("sqrt", the default, "linear" or "fixed"), and
            tokens_per_parameter_ratio (default: ratio of tokens batch*steps, if the width stays).
        rule: constant_epochs, constant_fraction, tokens_per_parameter, constant_rotation or sqrt_width.

    Returns:
        Learning rate, weight decay, and the rule's reason, source and limits.

    Raises:
        InputError: If the rule or a key is unknown, a size is missing or not positive, or lr*weight_decay reaches 1.

    Example:
        >>> have = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 128, "steps": 10_000}
        >>> transfer(have, {"batch_size": 512, "steps": 2_500, "lr_rule": "sqrt"}, "constant_epochs").weight_decay
        0.2
    """
    require(rule in RULES, "rule", rule, f"one of {', '.join(RULES)}")
    for name, given, known in (("have", have, _HAVE), ("want", want, _WANT)):
        unknown = sorted(set(given) - set(known))
        require(not unknown, name, unknown, f"made of {', '.join(known)}")
    name = want.get("lr_rule", "sqrt")
    require(name in LR_RULES, "lr_rule", name, f"one of {', '.join(LR_RULES)}")
    k = _ratios(have, want)
    old_lr, old_decay = _positive(have, "have", "lr"), finite("have['weight_decay']", have.get("weight_decay"))
    lr = _positive(want, "want", "lr") if "lr" in want else old_lr * LR_RULES[name](k.batch) / k.width
    shrink = old_lr * old_decay * RULES[rule].factor(k)
    require(shrink < 1, "lr * weight_decay", shrink, "below 1 after the change")
    chosen = RULES[rule]
    return Advice(rule, lr, shrink / lr, chosen.why, chosen.source, chosen.limits)


def _positive(given: Mapping[str, Any], name: str, key: str) -> float:
    value = finite(f"{name}[{key!r}]", given.get(key))
    require(value > 0, f"{name}[{key!r}]", value, "positive")
    return value


def _ratios(have: Mapping[str, Any], want: Mapping[str, Any]) -> Ratios:
    def ratio(key: str) -> float:
        return _positive(want, "want", key) / _positive(have, "have", key) if key in want else 1.0

    batch, steps, width = ratio("batch_size"), ratio("steps"), ratio("width")
    tokens = batch * steps if width == 1 else None
    if "tokens_per_parameter_ratio" in want:
        tokens = _positive(want, "want", "tokens_per_parameter_ratio")
    return Ratios(batch, steps, ratio("dataset_size"), width, tokens)
