"""Frozen dataclasses to JSON and back, and a content hash that does not depend on spelling."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from typing import Any, TypeVar

from theory.errors import InputError

_KINDS: dict[str, type] = {}
T = TypeVar("T", bound=type)


def serializable(cls: T) -> T:
    """Class decorator: let `from_dict` find this frozen dataclass by its name.

    Args:
        cls: A dataclass whose fields are JSON values, enums, tuples of those, or other serializable dataclasses.

    Returns:
        The class, unchanged.
    """
    _KINDS[cls.__name__] = cls
    return cls


def settle(instance: Any, **values: Any) -> None:
    """Store checked values in a frozen dataclass (in `__post_init__`), so that equal objects are spelled alike.

    Args:
        instance: The object under construction.
        **values: Its fields' values as plain Python numbers, strings and tuples.
    """
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def to_dict(value: Any) -> Any:
    """Turn a (nested) dataclass into plain JSON values; every object carries its class name as `kind`.

    Args:
        value: A serializable dataclass, or anything JSON can hold.

    Returns:
        Dictionaries, lists, strings, numbers.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    return value


def from_dict(value: Any) -> Any:
    """Rebuild what `to_dict` wrote.

    Args:
        value: Plain JSON values.

    Returns:
        The object.

    Raises:
        InputError: If a `kind` is unknown, or a field does not belong to it or is missing.
    """
    if isinstance(value, list):
        return tuple(from_dict(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "kind" not in value:
        return {key: from_dict(item) for key, item in value.items()}
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(f"kind = {kind!r} is not allowed: it must be one of {', '.join(sorted(_KINDS))}.")
    cls = _KINDS[kind]
    names = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(value) - names - {"kind"})
    if unknown:
        allowed = ", ".join(sorted(names))
        raise InputError(
            f"{kind} has no field {unknown[0]!r} (given: {value[unknown[0]]!r}): its fields are {allowed}."
        )
    needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in value]
    if missing:
        raise InputError(f"{kind} lacks the field {missing[0]!r}: it must be given.")
    return cls(**{key: from_dict(item) for key, item in value.items() if key != "kind"})


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Write a dataclass as JSON.

    Args:
        value: A serializable dataclass.
        indent: As in `json.dumps`.

    Returns:
        The JSON text.
    """
    return json.dumps(to_dict(value), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
    """Read what `to_json` wrote.

    Args:
        text: The JSON text.

    Returns:
        The object.

    Raises:
        InputError: If the text is not JSON or does not describe a known object.
    """
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise InputError(f"The text is not JSON ({error}).") from None


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of a dataclass, as 64 hexadecimal digits.

    Args:
        value: A serializable dataclass or JSON value.

    Returns:
        The digest; equal contents have equal digests whatever the order of keys.
    """
    canonical = json.dumps(to_dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
