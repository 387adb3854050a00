"""Lists of configurations: an experiment with several values of some fields, or a file."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from empirics.config import TrainConfig
from empirics.experiments import experiment
from empirics.overrides import override
from theory.errors import InputError, require
from theory.serialize import from_dict

Change = Callable[[TrainConfig], TrainConfig]


def grid(
    name: str, assignments: Sequence[str], *, scale: str = "cpu", change: Change | None = None
) -> list[TrainConfig]:
    """A named experiment at every combination of the given values.

    Args:
        name: The experiment.
        assignments: Such as "optimizer.lr=1e-3,4e-3": alternatives are separated by commas that stand in no bracket
            and no quotation marks. seed=0,1 is the experiment's seed: of initialisation, data order and label noise.
        scale: Its scale.
        change: Applied to each before the assignments, such as other data.

    Returns:
        The configurations, the last field varying fastest.

    Raises:
        InputError: If there is no such experiment, or an assignment is wrong.

    Example:
        >>> runs = grid("resnet_noisy_digits", ["optimizer.lr=0.1,0.2", "seed=0,1,2"])
        >>> len(runs), runs[1].optimizer.lr, runs[1].seed, runs[1].data.noise_seed
        (6, 0.1, 1, 1)
    """
    changed: Change = change or (lambda config: config)
    changed(experiment(name, scale=scale))  # an unknown name or scale is said before anything about fields
    fields = [(field, alternatives(text)) for field, _, text in (each.partition("=") for each in assignments)]
    for (field, values), each in zip(fields, assignments, strict=True):
        require("=" in each and all(values), "--set", each, "field=value,value, such as optimizer.lr=1e-3,4e-3")
        require([other for other, _ in fields].count(field) == 1, "--set", each, f"the only one of {field}")
    found = []
    for values in product(*(values for _, values in fields)):
        chosen = dict(zip((field for field, _ in fields), values, strict=True))
        seed = chosen.pop("seed", "0")
        require(seed.isdigit(), "--set seed", seed, "a whole number >= 0")
        config = changed(experiment(name, seed=int(seed), scale=scale))
        found.append(override(config, [f"{field}={value}" for field, value in chosen.items()]))
    return found


def read_configs(file: Path) -> list[TrainConfig]:
    """Configurations from a file.

    Args:
        file: *.json: a list of configurations, as `theory.serialize.to_json` writes them or with an experiment's name,
            {"experiment": NAME, "scale": "cpu", "seed": 0, "set": {"optimizer.lr": 0.001}}; a run's config.json will
            do. *.py: a module whose `configs` is a list of them, or a function that returns one.

    Returns:
        The configurations.

    Raises:
        InputError: If the file cannot be read, or something in it is no configuration.
    """
    require(file.is_file() and file.suffix in (".json", ".py"), "file", str(file), "a *.json or *.py that exists")
    if file.suffix == ".py":
        try:
            found: Any = runpy.run_path(str(file)).get("configs", ())
            made: Any = found() if callable(found) else found
            there = list[Any](made)
        except InputError:
            raise
        except Exception as error:  # whatever goes wrong in somebody's module
            raise InputError(f"{file} cannot be run ({type(error).__name__}: {error}).") from None
    else:
        try:
            tree = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file} is not JSON ({error}).") from None
        there = [_read(item, file) for item in (tree if isinstance(tree, list) else [tree])]
    if not there:
        raise InputError(f"{file} holds no configurations: it must have at least one.")
    for item in there:
        if not isinstance(item, TrainConfig):
            raise InputError(f"{file} holds {str(item)[:80]!r}, which is no TrainConfig.")
    return there


def alternatives(text: str) -> list[str]:
    """Split a text at its commas, but not inside brackets or quotation marks.

    Args:
        text: Such as "1,2" or "[1,2],[3]".

    Returns:
        The parts, stripped.

    Example:
        >>> alternatives('[0.9,0.95], [0.9,0.99]'), alternatives('"names:a,b",all')
        (['[0.9,0.95]', '[0.9,0.99]'], ['"names:a,b"', 'all'])
    """
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{(") - (character in "]})")
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _read(item: Any, file: Path) -> Any:
    if not isinstance(item, dict):
        return item
    if "experiment" not in item:
        return from_dict(item["config"] if "config" in item and "kind" not in item else item)
    known = {"experiment", "scale", "seed", "set"}
    extra = sorted(set(item) - known)
    if extra:
        raise InputError(f"{file}: {extra[0]!r} is not allowed beside experiment: it must be scale, seed or set.")
    config = experiment(item["experiment"], seed=item.get("seed", 0), scale=item.get("scale", "cpu"))
    return override(config, [f"{field}={json.dumps(value)}" for field, value in item.get("set", {}).items()])
