"""What to set for another batch, length or width, by every rule that applies; or without a tuned setting at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theory.errors import InputError, finite, require
from theory.transfer import RULES, TPP_EXPONENT, Advice, transfer

TPP_CONSTANT = 1.084
"""tau/T at one token per parameter, as quoted for Bergsma et al., arXiv 2505.13738; not checked against the paper."""
_NEEDS = {
    "constant_epochs": {"batch_size", "dataset_size"},
    "constant_fraction": {"steps"},
    "tokens_per_parameter": {"steps", "batch_size", "tokens_per_parameter_ratio"},
    "constant_rotation": {"batch_size", "steps", "width", "dataset_size", "lr"},
    "sqrt_width": {"width"},
}


def advise(have: Mapping[str, Any], want: Mapping[str, Any] | None = None) -> list[Advice]:
    """Learning rate and decoupled weight decay, one answer for each rule that applies: compare them, never average.

    With a tuned setting (`have` holds lr and weight_decay, `want` what changes) every rule of `theory.transfer.RULES`
    whose sizes change is applied. Without one (`have` holds parameters, tokens, batch_size in tokens and lr, no
    weight_decay) the power law tau/T = 1.084 (tokens/parameters)^-0.527 sets lr*weight_decay = 1/tau.

    Source: as each answer says. The rules are empirical within their limits.

    Args:
        have: The tuned setting, see `transfer`; or parameters, tokens, batch_size (tokens per step) and lr.
        want: What changes, see `transfer`; None without a tuned setting.

    Returns:
        One advice per rule.

    Raises:
        InputError: If no rule applies, or an input is missing, unknown or out of range.

    Example:
        >>> have = {"lr": 1e-3, "weight_decay": 0.1, "batch_size": 128, "steps": 10_000}
        >>> [(a.rule, round(a.weight_decay, 3)) for a in advise(have, {"steps": 40_000})]
        [('constant_fraction', 0.025), ('tokens_per_parameter', 0.052), ('constant_rotation', 0.1)]
        >>> advise({"parameters": 124e6, "tokens": 2.5e9, "batch_size": 0.5e6, "lr": 6e-4})[0].rule
        'tokens_per_parameter'
    """
    if want is None:
        return [_prior(have)]
    changed = set(want) - {"lr_rule"}
    require(bool(changed), "want", dict(want), "something that changes: batch_size, steps, width, dataset_size or lr")
    found, refused = [], []
    for rule in RULES:
        if changed & _NEEDS[rule]:
            try:
                found.append(transfer(have, want, rule))
            except InputError as error:
                refused.append(error)
    if not found:
        raise refused[0] if refused else InputError(f"want = {dict(want)!r} is not allowed: no rule speaks of it.")
    return found


def _prior(have: Mapping[str, Any]) -> Advice:
    names = ("parameters", "tokens", "batch_size", "lr")
    unknown = sorted(set(have) - set(names))
    require(not unknown, "have", unknown, f"made of {', '.join(names)} where want is None")
    values = {name: finite(f"have[{name!r}]", have.get(name)) for name in names}
    for name, value in values.items():
        require(value > 0, f"have[{name!r}]", value, "positive")
    steps = values["tokens"] / values["batch_size"]
    fraction = TPP_CONSTANT * (values["tokens"] / values["parameters"]) ** -TPP_EXPONENT
    shrink = 1 / (fraction * steps)
    require(shrink < 1, "lr * weight_decay", shrink, "below 1: the run is too short for the rule")
    rule = RULES["tokens_per_parameter"]
    return Advice(
        "tokens_per_parameter",
        values["lr"],
        shrink / values["lr"],
        f"sets the weights' memory to {fraction:.2g} of the run, {fraction * steps:,.0f} of {steps:,.0f} steps",
        rule.source,
        f"{rule.limits}; the constant {TPP_CONSTANT} is quoted, unchecked: prefer a tuned reference",
    )
