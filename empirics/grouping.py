"""Which parameters decay, spelled in a configuration, and the audit that each of them is in exactly one group."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from theory.errors import InputError, require

ALLOWED = (
    "'matrices' or 'all', names of parameters such as names:lm_head.weight,conv.weight, or a regular expression that "
    "is searched for in their names, such as regex:mlp|attn"
)
Rule = Callable[[str, Tensor], bool]


def spelled(decayed: str | Sequence[str]) -> str:
    """Check which tensors decay, and spell it in one way.

    Args:
        decayed: matrices (two or more dimensions: nanoGPT's rule), all, names:A,B, regex:PATTERN, or a sequence of
            names.

    Returns:
        The same as one text; names in alphabetical order.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> spelled(["head.weight", "conv.weight"]), spelled("regex:mlp|attn")
        ('names:conv.weight,head.weight', 'regex:mlp|attn')
    """
    if decayed in ("matrices", "all"):
        return str(decayed)
    if not isinstance(decayed, str):
        named = isinstance(decayed, Sequence) and all(isinstance(name, str) for name in decayed)
        require(named, "decay", decayed, ALLOWED)
        decayed = "names:" + ",".join(decayed)
    kind, _, text = decayed.partition(":")
    names = sorted({name.strip() for name in text.split(",")})
    require(kind in ("names", "regex") and text != "" and (kind == "regex" or all(names)), "decay", decayed, ALLOWED)
    if kind == "names":
        return "names:" + ",".join(names)
    try:
        re.compile(text)
    except re.error as error:
        raise InputError(f"decay = {decayed!r} is not a regular expression: {error}.") from None
    return decayed


def rule(decayed: str | Sequence[str], model: nn.Module) -> Rule:
    """Whether a parameter decays, by its name and shape.

    Args:
        decayed: As in `spelled`.
        model: The model; a name it lacks, or an expression that fits none of its names, is a mistake.

    Returns:
        The rule.

    Raises:
        InputError: If it is one.

    Example:
        >>> decays = rule("regex:weight", nn.Linear(2, 2))
        >>> [name for name, p in nn.Linear(2, 2).named_parameters() if decays(name, p)]
        ['weight']
    """
    text = spelled(decayed)
    kind, _, rest = text.partition(":")
    if kind in ("matrices", "all"):
        return lambda name, parameter: kind == "all" or parameter.dim() >= 2
    there = [name for name, p in model.named_parameters() if p.requires_grad]
    if kind == "names":
        wanted = set(rest.split(","))
        missing = sorted(wanted - set(there))
        if missing:
            raise InputError(f"decay names {missing[0]!r}, which is none of the model's: they are {', '.join(there)}.")
        return lambda name, _: name in wanted
    pattern = re.compile(rest)
    if not any(map(pattern.search, there)):
        raise InputError(f"decay = {text!r} fits none of the model's parameters: they are {', '.join(there)}.")
    return lambda name, _: pattern.search(name) is not None


def grouped(
    parameters: Mapping[str, nn.Parameter], decays: Rule, *, apart: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer: the decayed, the others, and some that have a group of their own.

    Args:
        parameters: By name.
        decays: From `rule`.
        apart: Names of those that get a group of their own, for learning rates of their own.

    Returns:
        Groups that are not empty, each with `decayed`.

    Example:
        >>> groups = grouped(dict(nn.Linear(2, 2).named_parameters()), lambda name, p: name == "weight")
        >>> [(group["decayed"], len(group["params"])) for group in groups]
        [(True, 1), (False, 1)]
    """
    together = {name: p for name, p in parameters.items() if name not in apart}
    chosen = [p for name, p in together.items() if decays(name, p)]
    rest = [p for name, p in together.items() if not decays(name, p)]
    alone = [(name, p) for name, p in parameters.items() if name in apart]
    groups = [{"params": part, "decayed": part is chosen} for part in (chosen, rest) if part]
    return groups + [{"params": [p], "decayed": decays(name, p)} for name, p in alone]


def audit(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> None:
    """Make sure that every trainable parameter is in exactly one group, and no other is in any.

    Args:
        model: The model.
        groups: An optimizer's `param_groups`.

    Raises:
        InputError: If one is not; names it.

    Example:
        >>> audit(nn.Linear(2, 2), [])
        Traceback (most recent call last):
        theory.errors.InputError: Parameter 'weight' is in 0 groups of the optimizer: it must be in exactly one.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    count: dict[int, int] = {}
    for group in groups:
        for p in group["params"]:
            count[id(p)] = count.get(id(p), 0) + 1
    for name, p in model.named_parameters():
        found, wanted = count.pop(id(p), 0), int(p.requires_grad)
        if found != wanted:
            must = "exactly one" if wanted else "none, since it is frozen"
            raise InputError(f"Parameter {name!r} is in {found} groups of the optimizer: it must be in {must}.")
    if count:
        foreign = next((names.get(key, "without a name") for key in count), "")
        raise InputError(f"The optimizer holds a parameter ({foreign}) that is none of the model's.")
