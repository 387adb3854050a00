"""Where a watch's measurements go besides its run directory: three methods each, every library an optional extra."""

from __future__ import annotations

import csv
import importlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from empirics.directory import Values
from empirics.records import UNITS
from theory.errors import InputError

BATCH = 1000  # MLflow's largest number of metrics a request


@runtime_checkable
class Sink(Protocol):
    """Receives measurements; anything with these three methods can be one."""

    def open(self, path: Path, config: Mapping[str, Any]) -> None:
        """Begin, before step 0.

        Args:
            path: The run directory; its name is the run's name.
            config: What was watched, as JSON values.
        """
        ...

    def write(self, step: int, values: Values) -> None:
        """Take in what was measured at a step; steps come in order.

        Args:
            step: Its number.
            values: {quantity: {tensor: value}}; the key of a global value is "".
        """
        ...

    def close(self) -> None:
        """End."""
        ...


class CSV:
    """metrics.csv in the run directory: columns run, step, tensor, quantity, value, unit."""

    def open(self, path: Path, config: Mapping[str, Any]) -> None:
        """Write the header."""
        self._name = path.name
        self._file = open(path / "metrics.csv", "w", newline="")  # noqa: SIM115 - open for as long as the run
        self._writer = csv.writer(self._file)
        self._writer.writerow(["run", "step", "tensor", "quantity", "value", "unit"])

    def write(self, step: int, values: Values) -> None:
        """Write one row a value."""
        self._writer.writerows(
            (self._name, step, tensor, quantity, value, UNITS.get(quantity, "1"))
            for quantity, each in values.items()
            for tensor, value in each.items()
        )
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Event files in the run directory's folder tensorboard; needs the `tensorboard` extra."""

    def __init__(self) -> None:
        self._writer_class = needed("torch.utils.tensorboard", "tensorboard").SummaryWriter

    def open(self, path: Path, config: Mapping[str, Any]) -> None:
        """Open the event file."""
        self._writer = self._writer_class(log_dir=str(path / "tensorboard"))

    def write(self, step: int, values: Values) -> None:
        """Write one scalar a value."""
        for key, value in flat(values).items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandB:
    """A Weights & Biases run of its own, beside the one that the training script may have open; `wandb` extra.

    Args:
        project: Its project.
        mode: As in `wandb.init`: "offline" writes files only.
    """

    def __init__(self, project: str = "decaylab", mode: str | None = None) -> None:
        self._wandb, self.project, self.mode = needed("wandb", "wandb"), project, mode

    def open(self, path: Path, config: Mapping[str, Any]) -> None:
        """Start the run."""
        self._run = self._wandb.init(
            project=self.project,
            name=path.name,
            dir=str(path),
            config=dict(config),
            mode=self.mode,
            reinit="create_new",
        )

    def write(self, step: int, values: Values) -> None:
        """Log one row."""
        self._run.log(flat(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """An MLflow run of its own, beside the active one; needs the `mlflow` extra.

    Args:
        experiment: Name of its experiment, created if there is none.
        tracking_uri: As in `mlflow.set_tracking_uri`; MLflow's own default if omitted.
    """

    def __init__(self, experiment: str = "decaylab", tracking_uri: str | None = None) -> None:
        self._mlflow, self.experiment = needed("mlflow", "mlflow"), experiment
        self._client = self._mlflow.MlflowClient(tracking_uri=tracking_uri)

    def open(self, path: Path, config: Mapping[str, Any]) -> None:
        """Start the run."""
        known = self._client.get_experiment_by_name(self.experiment)
        number = known.experiment_id if known else self._client.create_experiment(self.experiment)
        self._run = self._client.create_run(number, run_name=path.name).info.run_id
        for key, value in config.items():
            self._client.log_param(self._run, key, value)

    def write(self, step: int, values: Values) -> None:
        """Log one batch."""
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        # colons and brackets are not allowed in its names on every system
        metrics = [metric(_plain(key), value, now, step) for key, value in flat(values).items() if math.isfinite(value)]
        for begin in range(0, len(metrics), BATCH):
            self._client.log_batch(self._run, metrics=metrics[begin : begin + BATCH])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


SINKS = {"csv": CSV, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""Sinks that can be asked for by name."""


def sinks_of(asked: Sequence[str | Sink] | str) -> tuple[Sink, ...]:
    """Sinks from names, or as they are.

    Args:
        asked: Names in `SINKS`, or objects with the three methods.

    Returns:
        The sinks, not yet open.

    Raises:
        InputError: If one is neither, or needs a library that is not installed.

    Example:
        >>> [type(sink).__name__ for sink in sinks_of("csv")]
        ['CSV']
    """
    found: list[Sink] = []
    for each in (asked,) if isinstance(asked, str) else asked:
        if isinstance(each, str) and each in SINKS:
            found.append(SINKS[each]())
        elif not isinstance(each, str) and isinstance(each, Sink):
            found.append(each)
        else:
            names = ", ".join(SINKS)
            raise InputError(f"sinks = {each!r} is not allowed: it must be {names}, or have open, write and close.")
    return tuple(found)


def needed(module: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        module: What to import.
        extra: The extra of decaylab that installs it.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        raise InputError(f"{missing} is not installed: install decaylab with the '{extra}' extra.") from None


def flat(values: Values) -> dict[str, float]:
    """{quantity/tensor: value}, a global value under its quantity alone.

    Args:
        values: {quantity: {tensor: value}}.

    Returns:
        One entry a value.

    Example:
        >>> flat({"norm": {"w": 2.0}, "loss": {"": 0.5}})
        {'norm/w': 2.0, 'loss': 0.5}
    """
    return {
        f"{quantity}/{tensor}" if tensor else quantity: value
        for quantity, each in values.items()
        for tensor, value in each.items()
    }


def _plain(key: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in key)
