"""Which runs a figure needs besides those that its table lacks; a sweep trains them in the order that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from empirics.config import TrainConfig
from empirics.origins import followed


def with_followed(
    wanted: Sequence[TrainConfig], every: Sequence[TrainConfig], done: Callable[[TrainConfig], bool]
) -> list[TrainConfig]:
    """Runs to make: those that are missing, and those that they follow if they are not there.

    Args:
        wanted: Runs that are missing.
        every: All runs of the figure.
        done: Whether a run directory is there, and complete.

    Returns:
        The runs, each once.

    Example:
        >>> from paper.figures.sphere import arms
        >>> runs = arms(3)
        >>> found = with_followed([runs["tracked"]], list(runs.values()), lambda config: False)
        >>> [config == runs[name] for config, name in zip(found, ("tracked", "decayed"), strict=True)]
        [True, True]
    """
    known = {config.directory: config for config in every} | {config.directory: config for config in wanted}
    found = {config.directory: config for config in wanted}
    queue = list(wanted)
    while queue:
        for name in followed(queue.pop()):
            if name in known and name not in found and not done(known[name]):
                found[name] = known[name]
                queue.append(known[name])
    return list(found.values())
