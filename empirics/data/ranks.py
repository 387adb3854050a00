"""The part of a step's batch that one of many processes trains on."""

from __future__ import annotations

from theory.errors import require, whole


def share(batch_size: int, *, rank: int, world: int) -> slice:
    """Which rows of a batch belong to a rank: ranks in order, without overlap or remainder, give the whole batch.

    Args:
        batch_size: Rows of the whole batch.
        rank: This process, from 0.
        world: Number of processes. With k accumulated parts each, it is k times as many, and the rank of part j of
            process r is k * r + j.

    Returns:
        The rows.

    Raises:
        InputError: If the batch cannot be divided evenly, or there is no such rank.

    Example:
        >>> [share(6, rank=rank, world=2) for rank in (0, 1)]
        [slice(0, 3, None), slice(3, 6, None)]
    """
    whole("world", world, low=1)
    whole("rank", rank)
    require(rank < world, "rank", rank, f"below world = {world}")
    require(batch_size % world == 0, "batch_size", batch_size, f"a multiple of {world}, or ranks would weigh unequally")
    rows = batch_size // world
    return slice(rank * rows, (rank + 1) * rows)
