"""Bad input gets one clear sentence: what is wrong, what was given, what is allowed."""

from __future__ import annotations

import math
from typing import Any


class InputError(ValueError):
    """An input that cannot be used; its text is one sentence a user can act on."""


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise `InputError` naming the field, the value given and what is allowed.

    Args:
        condition: True if the value is fine.
        field: Name of the offending argument, as the user wrote it.
        value: What was given.
        allowed: What would have been accepted.

    Raises:
        InputError: If `condition` is false.

    Example:
        >>> require(0.1 > 0, "lr", 0.1, "a positive number")
    """
    if not condition:
        raise InputError(f"{field} = {value!r} is not allowed: it must be {allowed}.")


def finite(field: str, value: Any, *, low: float = 0.0, high: float = math.inf, open_high: bool = True) -> float:
    """Return `value` as a float in [low, high) (or [low, high]), or raise.

    Args:
        field: Name of the argument.
        value: What was given.
        low: Smallest admissible value.
        high: Largest admissible value (exclusive unless `open_high` is false).
        open_high: Whether `high` itself is excluded.

    Returns:
        The value as a float.

    Raises:
        InputError: If it is not a finite real number in the interval.

    Example:
        >>> finite("lr", 0.1)
        0.1
    """
    upper = f" and {'<' if open_high else '<='} {high:g}" if math.isfinite(high) else ""
    allowed = f"a finite number >= {low:g}{upper}"
    if isinstance(value, (bool, str, bytes)) or value is None:
        raise InputError(f"{field} = {value!r} is not allowed: it must be {allowed}.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{field} = {value!r} is not allowed: it must be {allowed}.") from None
    inside = low <= number and (number < high if open_high and math.isfinite(high) else number <= high)
    require(math.isfinite(number) and inside, field, value, allowed)
    return number + 0.0  # -0.0 becomes 0.0, so that equal numbers are spelled alike


def whole(field: str, value: Any, *, low: int = 0) -> int:
    """Return `value` as an int of at least `low`, or raise.

    Args:
        field: Name of the argument.
        value: What was given.
        low: Smallest admissible value.

    Returns:
        The value as an int.

    Raises:
        InputError: If it is not a whole number of at least `low`.

    Example:
        >>> whole("steps", 50_000, low=1)
        50000
    """
    fits = hasattr(value, "__index__") or (isinstance(value, float) and value.is_integer())
    ok = fits and not isinstance(value, bool) and int(value) >= low
    require(ok, field, value, f"a whole number >= {low}")
    return int(value)
