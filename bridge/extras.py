"""Libraries that only an extra installs."""

from __future__ import annotations

import importlib
from typing import Any

from theory.errors import InputError


def extra(module: str, name: str) -> Any:
    """Import a module of an optional library.

    Args:
        module: Its name.
        name: The extra that installs it.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed.

    Example:
        >>> extra("json", "report").dumps([])
        '[]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: install decaylab with the {name!r} extra.") from None
