"""Checkpoints that hold everything a run needs to continue bitwise, and that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.files import one_sentence_if_full, sync_folder, write_file
from theory.errors import InputError


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

    Returns:
        The checkpoint's path.

    Raises:
        DiskFullError: If the disk is full; earlier checkpoints are intact.
    """
    final, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    state = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "rng": rng_state(), "extra": dict(extra or {})}, state)
    files = {"model.safetensors": safetensors.torch.save(_unique(model)), "state.pt": state.getvalue()}
    with one_sentence_if_full(final):
        try:
            restore(folder)
            temporary.mkdir(parents=True)
            for name, data in files.items():
                write_file(temporary / name, data)
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            write_file(temporary / "complete.json", json.dumps({"step": step, "sha256": digests}).encode())
            aside = folder / f".step-{step:08d}.old"
            if final.exists():
                os.replace(final, aside)
            os.replace(temporary, final)
            shutil.rmtree(aside, ignore_errors=True)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    sync_folder(folder)
    for old in checkpoints(folder)[:-keep]:
        if not keep_every or int(old.name.removeprefix("step-")) % keep_every:
            shutil.rmtree(old)
    return final


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
        path: The checkpoint.
        model: Built from the same configuration.
        optimizer: The model's optimizer; None loads the weights only.
        extra: Filled with what was saved as such, if there is an optimizer.

    Returns:
        Number of steps done.

    Raises:
        DamagedCheckpointError: If it is incomplete or corrupt; says which file.
        InputError: If it is of another model.
    """
    try:
        complete = json.loads((path / "complete.json").read_bytes())
        files = {name: (path / name).read_bytes() for name in complete["sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"Checkpoint {path} is incomplete ({type(error).__name__}: {error}).") from None
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != complete["sha256"][name]:
            raise DamagedCheckpointError(
                f"Checkpoint {path} is corrupt: {name} does not have the contents that were saved."
            )
    try:
        _fill(model, safetensors.torch.load(files["model.safetensors"]))
        if optimizer is not None:
            state = torch.load(io.BytesIO(files["state.pt"]), map_location="cpu", weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            set_rng_state(state["rng"])
            if extra is not None:
                extra.update(state.get("extra", {}))
    except (RuntimeError, ValueError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise InputError(f"Checkpoint {path} does not fit the model: {error}.") from None
    return int(complete["step"])


def load_latest(folder: Path, *, model: nn.Module, optimizer: Optimizer, extra: dict[str, Any] | None = None) -> int:
    """Continue from the newest checkpoint that is whole; damaged ones are named in a warning and set aside.

    Args:
        folder: The run's checkpoints; need not exist.
        model: Filled in place.
        optimizer: Filled in place.
        extra: Filled in place, as in `load`.

    Returns:
        Number of steps done, 0 if there is no usable checkpoint.
    """
    restore(folder)
    for path in reversed(checkpoints(folder)):
        try:
            return load(path, model=model, optimizer=optimizer, extra=extra)
        except DamagedCheckpointError as error:
            warnings.warn(f"{error} The one before it is used.", stacklevel=2)
            os.replace(path, path.with_name(f"damaged-{path.name}-{os.getpid()}"))
    return 0


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first.

    Args:
        folder: The run's checkpoints; need not exist.

    Returns:
        Their paths.
    """
    return sorted(folder.glob("step-*"))


def rng_state() -> dict[str, Any]:
    """State of every global random number generator, in types that torch.load reads safely.

    Returns:
        Python's, numpy's, torch's and each CUDA device's.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global generator
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned.

    Args:
        state: The state.
    """
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _unique(model: nn.Module) -> dict[str, Tensor]:
    """The state dictionary with each tied tensor under its first name only."""
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        seen.setdefault((tensor.data_ptr() or id(tensor), tuple(tensor.shape)), name)
    return {name: state[name].contiguous() for name in seen.values()}


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    expected = set(_unique(model))
    if set(tensors) != expected:
        odd = sorted(expected ^ set(tensors))
        raise ValueError(f"tensors {', '.join(odd[:3])} are in only one of the two")
    model.load_state_dict(tensors, strict=False)
