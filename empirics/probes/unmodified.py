"""A batch that a model must not change in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from empirics.probes.jacobian_batch import leaves
from theory.errors import InputError


@contextmanager
def unmodified(batch: Any) -> Iterator[None]:
    """Refuse what is done to a batch in place inside the block, and undo it.

    Args:
        batch: A tensor, or lists, tuples and mappings of them; anything else is not looked into.

    Raises:
        InputError: After the block, if a tensor was written to.

    Example:
        >>> x = torch.ones(2)
        >>> with unmodified([x]):
        ...     _ = x.mul_(3)
        Traceback (most recent call last):
        theory.errors.InputError: batch is changed in place by the model: it must stay as it is, so clone it in forward.
        >>> x
        tensor([1., 1.])
    """
    kept = [(x, x._version, x.detach().clone()) for x in leaves(batch) if not x.is_inference()]
    reason: RuntimeError | None = None
    try:
        yield
    except RuntimeError as error:
        if "in-place" not in str(error):
            raise
        reason = error
    changed = [(x, before) for x, version, before in kept if x._version != version]
    with torch.no_grad():
        for x, before in changed:
            x.copy_(before)
    if changed:
        message = "batch is changed in place by the model: it must stay as it is, so clone it in forward."
        raise InputError(message) from reason
    if reason is not None:
        raise reason
