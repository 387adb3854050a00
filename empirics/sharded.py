# pyright: reportPrivateImportUsage=false
"""Checkpoints of sharded tensors, which every process writes its part of, and any number of processes read.

Such a checkpoint holds the shards as torch.distributed.checkpoint writes them (`*.distcp` with `.metadata`) in place of
model.safetensors; state.pt is the rest of the state, with a note where each sharded tensor belongs. It is loaded by
`empirics.checkpoint.load` as any other, without torchrun, too.
"""

from __future__ import annotations

import errno
import io
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from empirics.files import one_sentence_if_full, write_file

if TYPE_CHECKING:
    from empirics.ranks import Ranks

METADATA = ".metadata"
NOTE = "sharded tensor"


def save(folder: Path, step: int, state: dict[str, Any], ranks: Ranks) -> None:
    """Write the checkpoint folder/step-<step>; called by all processes, whole or absent as any other.

    Args:
        folder: The run's checkpoints, seen by all processes.
        step: Number of steps done.
        state: Containers of DTensors, and of anything else that is the same in all processes.
        ranks: The processes.

    Raises:
        DiskFullError: If the disk is full; earlier checkpoints are intact.
    """
    import torch.distributed.checkpoint as dcp

    from empirics.checkpoint import COMPLETE, digest, replacing, unfinished

    tensors: dict[str, Any] = {}
    rest = apart(state, tensors)
    place = replacing(folder, step) if ranks.first else nullcontext(unfinished(folder, step))
    with one_sentence_if_full(folder / f"step-{step:08d}"), place as temporary:
        ranks.wait()
        try:
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(temporary), process_group=ranks.control)
        except dcp.CheckpointException as error:  # no Exception of torch's, and as long as all tracebacks together
            raise _plain(error) from None
        mine = temporary.glob(f"__{ranks.rank}_*.distcp")
        digests = {name: x for part in ranks.gather({f.name: digest(f) for f in mine}) for name, x in part.items()}
        if ranks.first:
            file = io.BytesIO()
            torch.save(rest, file)
            write_file(temporary / "state.pt", file.getvalue())
            digests |= {name: digest(temporary / name) for name in (METADATA, "state.pt")}
            complete = {"step": step, "sha256": digests, "processes": ranks.world}
            write_file(temporary / COMPLETE, json.dumps(complete).encode())


def load(path: Path, mesh: Any = None, *, only: str | None = None) -> dict[str, Any]:
    """Read what `save` wrote.

    Args:
        path: The checkpoint.
        mesh: Device mesh over which tensors are sharded, called by all of its processes; None: whole tensors.
        only: Name of the one part of the state that is wanted; None: everything.

    Returns:
        The state.

    Raises:
        RuntimeError: If it cannot be read.
    """
    import torch.distributed.checkpoint as dcp

    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    state = state if only is None else {only: state[only]}
    tensors: dict[str, Any] = {}
    filled = together(state, tensors, mesh)
    group: dict[str, Any] = {"process_group": mesh.get_group()} if mesh is not None else {"no_dist": True}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), **group)
    except dcp.CheckpointException as error:
        raise _plain(error) from None
    return filled


def is_sharded(path: Path) -> bool:
    """Whether a checkpoint was written by `save`."""
    return (path / METADATA).exists()


def apart(tree: Any, tensors: dict[str, Any], name: str = "") -> Any:
    """Take the DTensors out of nested containers.

    Args:
        tree: The containers.
        tensors: Filled with the DTensors, by their place.
        name: Place of the tree itself.

    Returns:
        The same containers with a note in place of each.
    """
    if isinstance(tree, dict):
        return {key: apart(value, tensors, f"{name}.{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(apart(value, tensors, f"{name}.{i}") for i, value in enumerate(tree))
    if isinstance(tree, Tensor) and hasattr(tree, "full_tensor"):
        tensors[name] = tree
        return {NOTE: name, "shape": list(tree.shape), "dtype": str(tree.dtype).removeprefix("torch.")}
    return tree


def together(tree: Any, tensors: dict[str, Any], mesh: Any = None) -> Any:
    """Put empty tensors where `apart` left notes.

    Args:
        tree: What it returned.
        tensors: Filled with them, by their place, to be filled themselves.
        mesh: As in `load`.

    Returns:
        The containers with tensors.
    """
    if isinstance(tree, dict) and NOTE in tree:
        shape, dtype = tree["shape"], getattr(torch, tree["dtype"])
        if mesh is None:
            tensors[tree[NOTE]] = torch.empty(shape, dtype=dtype)
        else:
            from torch.distributed.tensor import Shard, empty

            tensors[tree[NOTE]] = empty(*shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
        return tensors[tree[NOTE]]
    if isinstance(tree, dict):
        return {key: together(value, tensors, mesh) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(together(value, tensors, mesh) for value in tree)
    return tree


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, sharded as another one is.

    Args:
        value: Any tensor, the same in all processes.
        other: Another one; unless it is a DTensor, the value stays as it is.

    Returns:
        The value.
    """
    if not hasattr(other, "full_tensor") or hasattr(value, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    target: Any = other
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def scattered(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state dictionary, with what has a sharded parameter's shape sharded like it.

    Args:
        state: The state dictionary.
        optimizer: The optimizer that will load it.

    Returns:
        It.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    each = {
        i: {
            key: like(x, parameters[i]) if isinstance(x, Tensor) and x.shape == parameters[i].shape else x
            for key, x in values.items()
        }
        for i, values in state["state"].items()
    }
    return {**state, "state": each}


def _plain(error: Any) -> Exception:
    """The first failure itself, if it was the disk, else a sentence."""
    rank, (cause, _) = next(iter(error.failures.items()))
    while isinstance(cause, Exception) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return OSError(cause.errno, str(cause))
    return RuntimeError(f"process {rank}: {type(cause).__name__}: {cause}")
