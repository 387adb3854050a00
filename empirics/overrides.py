"""Changing fields of a configuration by name: optimizer.lr=1e-3."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from theory.errors import InputError
from theory.serialize import from_dict, to_dict

C = TypeVar("C")


def override(config: C, assignments: Iterable[str]) -> C:
    """Copy a configuration with some fields changed.

    Args:
        config: A serializable dataclass.
        assignments: Such as "optimizer.lr=1e-3" or "name=mine"; values are JSON, or text where they are not.

    Returns:
        The changed configuration.

    Raises:
        InputError: If an assignment names no field or its value is not allowed there.

    Example:
        >>> from theory.optimizers import SGD
        >>> override(SGD(lr=0.1), ["momentum=0.9"]).momentum
        0.9
    """
    tree = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, leaf = path.strip().split(".")
        if not equals or not leaf:
            raise InputError(f"--set {assignment!r} is not allowed: it must be field=value, such as optimizer.lr=1e-3.")
        node: Any = tree
        parent: dict[str, Any] = tree
        for name in [*parents, leaf]:
            if not isinstance(node, dict) or name not in node or name == "kind":
                fields = ", ".join(key for key in node if key != "kind") if isinstance(node, dict) else "none"
                raise InputError(f"--set {path!r} names no field: at {name!r} the fields are {fields}.")
            parent, node = node, node[name]
        parent[leaf] = _value(text.strip())
    try:
        return from_dict(tree)
    except TypeError as error:
        raise InputError(f"--set {' '.join(assignments)}: a value has the wrong type ({error}).") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
