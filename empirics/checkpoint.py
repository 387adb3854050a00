"""Checkpoints that hold everything a run needs to continue bitwise, and that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import sharded
from empirics.files import one_sentence_if_full, sync_folder, write_file
from empirics.probes.products import is_sharded
from empirics.random_state import rng_state, set_rng_state
from empirics.ranks import ALONE, Ranks
from theory.errors import InputError

COMPLETE = "complete.json"


class DamagedCheckpointError(InputError):
    """A checkpoint whose files are not those that were saved."""


def save(
    folder: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    keep: int,
    keep_every: int = 0,
    extra: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Write the checkpoint folder/step-<step> and remove old ones; killed at any moment, it loses none that it keeps.

    Args:
        folder: The run's checkpoints.
        step: Number of steps done.
        model: Its parameters and buffers are saved, tied ones once.
        optimizer: Its state is saved.
        keep: How many checkpoints to keep, this one included.
        keep_every: Keep those after every so many steps for good, besides; 0: none.
        extra: What else a run needs, such as the state of its probes: tensors, numbers, texts, and containers of them.
        ranks: The run's processes, all of which call this. The first one writes; of sharded tensors each its shard.

    Returns:
        The checkpoint's path.

    Raises:
        DiskFullError: If the disk is full; earlier checkpoints are intact.
    """
    weights = _unique(model)
    rest = {"optimizer": optimizer.state_dict(), "rng": rng_state(), "extra": dict(extra or {})}
    if ranks.kind == "fsdp":
        sharded.save(folder, step, {"model": weights, **rest}, ranks)
    elif ranks.first:
        state = io.BytesIO()
        torch.save(rest, state)
        files = {"model.safetensors": safetensors.torch.save(weights), "state.pt": state.getvalue()}
        with replacing(folder, step) as temporary:
            for name, data in files.items():
                write_file(temporary / name, data)
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            write_file(temporary / COMPLETE, json.dumps({"step": step, "sha256": digests}).encode())
    for old in checkpoints(folder)[:-keep] if ranks.first else ():
        if not keep_every or int(old.name.removeprefix("step-")) % keep_every:
            shutil.rmtree(old)
    return folder / f"step-{step:08d}"


@contextmanager
def replacing(folder: Path, step: int) -> Iterator[Path]:
    """A temporary folder that, once the block has filled it, becomes the checkpoint folder/step-<step> in one go.

    Args:
        folder: The run's checkpoints.
        step: Number of steps done.

    Yields:
        The temporary folder.

    Raises:
        DiskFullError: If the disk is full; earlier checkpoints are intact.
    """
    final, temporary = folder / f"step-{step:08d}", unfinished(folder, step)
    with one_sentence_if_full(final):
        try:
            restore(folder)
            temporary.mkdir(parents=True)
            yield temporary
            aside = folder / f".step-{step:08d}.old"
            if final.exists():
                os.replace(final, aside)
            os.replace(temporary, final)
            shutil.rmtree(aside, ignore_errors=True)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    sync_folder(folder)


def unfinished(folder: Path, step: int) -> Path:
    """The folder in which a checkpoint is made."""
    return folder / f".step-{step:08d}.tmp"


def restore(folder: Path) -> None:
    """Clear what a process left that died while saving; a checkpoint that it was about to replace comes back.

    Args:
        folder: The run's checkpoints.
    """
    for aside in folder.glob(".step-*.old"):
        final = folder / aside.stem.removeprefix(".")
        if final.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, final)
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def load(
    path: Path, *, model: nn.Module, optimizer: Optimizer | None = None, extra: dict[str, Any] | None = None
) -> int:
    """Load one checkpoint into a model and, to continue training, into its optimizer and the random number generators.

    Args:
        path: The checkpoint, whole or sharded.
        model: Built from the same configuration.
        optimizer: The model's optimizer; None loads the weights only.
        extra: Filled with what was saved as such, if there is an optimizer.

    Returns:
        Number of steps done.

    Raises:
        DamagedCheckpointError: If it is incomplete or corrupt; says which file.
        InputError: If it is of another model.
    """
    return _load(path, verified(path), model=model, optimizer=optimizer, extra=extra)


def load_latest(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    extra: dict[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> int:
    """Continue from the newest checkpoint that is whole; damaged ones are named in a warning and set aside.

    Args:
        folder: The run's checkpoints; need not exist.
        model: Filled in place.
        optimizer: Filled in place.
        extra: Filled in place, as in `load`.
        ranks: The run's processes, all of which call this; other ones, or more, or fewer, than those that saved.

    Returns:
        Number of steps done, 0 if there is no usable checkpoint.
    """
    path, step = ranks.agree(_newest(folder) if ranks.first else (None, 0))
    return 0 if path is None else _load(path, step, model=model, optimizer=optimizer, extra=extra, mesh=ranks.mesh)


def _newest(folder: Path) -> tuple[Path | None, int]:
    restore(folder)
    for path in reversed(checkpoints(folder)):
        try:
            return path, verified(path)
        except DamagedCheckpointError as error:
            warnings.warn(f"{error} The one before it is used.", stacklevel=3)
            os.replace(path, path.with_name(f"damaged-{path.name}-{os.getpid()}"))
    return None, 0


def verified(path: Path) -> int:
    """Make sure that a checkpoint's files are those that were saved.

    Args:
        path: The checkpoint.

    Returns:
        Number of steps done.

    Raises:
        DamagedCheckpointError: If they are not; says which.
    """
    try:
        complete = json.loads((path / COMPLETE).read_bytes())
        found = {name: digest(path / name) for name in complete["sha256"]}
        step = int(complete["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"Checkpoint {path} is incomplete ({type(error).__name__}: {error}).") from None
    for name in found:
        if found[name] != complete["sha256"][name]:
            raise DamagedCheckpointError(
                f"Checkpoint {path} is corrupt: {name} does not have the contents that were saved."
            )
    return step


def _load(
    path: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: Optimizer | None,
    extra: dict[str, Any] | None,
    mesh: Any = None,
) -> int:
    try:
        if sharded.is_sharded(path):
            state = sharded.load(path, mesh, only=None if optimizer is not None else "model")
        else:
            state = {"model": safetensors.torch.load_file(path / "model.safetensors")}
            if optimizer is not None:
                state |= torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        _fill(model, state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(sharded.scattered(state["optimizer"], optimizer))
            set_rng_state(state["rng"])
            if extra is not None:
                extra.update(state.get("extra", {}))
    except (RuntimeError, ValueError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise InputError(f"Checkpoint {path} does not fit the model: {error}.") from None
    return step


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first.

    Args:
        folder: The run's checkpoints; need not exist.

    Returns:
        Their paths.
    """
    return sorted(folder.glob("step-*"))


def digest(file: Path) -> str:
    """SHA-256 of a file.

    Args:
        file: The file.

    Returns:
        64 hexadecimal digits.
    """
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unique(model: nn.Module) -> dict[str, Tensor]:
    """The state dictionary with each tied tensor under its first name only."""
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        address = 0 if is_sharded(tensor) else tensor.data_ptr()  # of a shard, which may be empty
        seen.setdefault((address or id(tensor), tuple(tensor.shape)), name)
    return {name: state[name].detach().contiguous() for name in seen.values()}


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    expected = _unique(model)
    if set(tensors) != set(expected):
        odd = sorted(set(expected) ^ set(tensors))
        raise ValueError(f"tensors {', '.join(odd[:3])} are in only one of the two")
    model.load_state_dict({name: sharded.like(x, expected[name]) for name, x in tensors.items()}, strict=False)
