"""In which order a figure's runs can be made: a run that others start from or follow comes before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from empirics.config import TrainConfig


def origins(config: TrainConfig) -> tuple[str, ...]:
    """Run directories that a run refers to.

    Args:
        config: The run.

    Returns:
        Their names.

    Example:
        >>> from paper.figures.sphere import arms
        >>> [origins(config) == (arms(3)["decayed"].directory,) for config in arms(3).values()]
        [False, True, True, True, True]
    """
    names = (config.match, config.twin, config.init_from.partition("@")[0])
    return tuple(dict.fromkeys(name for name in names if name))


def waves(
    wanted: Sequence[TrainConfig], every: Sequence[TrainConfig], done: Callable[[TrainConfig], bool]
) -> list[list[TrainConfig]]:
    """Runs to make, in groups: those of a group need only runs of the groups before it.

    Args:
        wanted: Runs that are missing.
        every: All runs of the figure; those that a missing one refers to are made again if they are not there.
        done: Whether a run directory is there, and complete.

    Returns:
        The groups, in order; a run that refers to none of the figure's is in the first.
    """
    known, place = {config.directory: config for config in every}, dict[str, int]()

    def visit(config: TrainConfig) -> int:
        if config.directory not in place:
            before = [known[name] for name in origins(config) if name in known]
            place[config.directory] = 1 + max((visit(other) for other in before if not done(other)), default=-1)
        return place[config.directory]

    for config in wanted:
        visit(config)
    known |= {config.directory: config for config in wanted}
    found: list[list[TrainConfig]] = [[] for _ in range(1 + max(place.values(), default=-1))]
    for name, number in place.items():
        found[number].append(known[name])
    return found
