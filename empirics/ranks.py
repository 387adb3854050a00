# pyright: reportPrivateImportUsage=false
"""The processes of one run as one of them sees them: how it joins them, and what they tell each other.

Run on CPUs with gloo, in up to two processes. The code for CUDA and NCCL has not been run.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from empirics.interrupt import Interrupted
from theory.errors import InputError, require

T = TypeVar("T")
KINDS = ("auto", "none", "ddp", "fsdp")
PATIENCE = timedelta(hours=1)  # how long a process waits for another one that says nothing
FAILED = "failed"
_broken: list[str] = []


class OtherProcessError(ConnectionError):
    """Another process of the run failed; says which and why."""


class Ranks:
    """The processes of one run, seen from one of them; with default arguments, a run in one process.

    Args:
        kind: none, ddp or fsdp.
        rank: This process, from 0; the first one writes the run directory.
        world: Number of processes.
        mesh: The device mesh over which fsdp shards.
        control: Process group for numbers on the CPU.

    Example:
        >>> alone = Ranks()
        >>> alone.first, alone.mean(torch.ones(2)).tolist()
        (True, [1.0, 1.0])
    """

    def __init__(self, kind: str = "none", rank: int = 0, world: int = 1, mesh: Any = None, control: Any = None):
        self.kind, self.rank, self.world, self.mesh, self.control = kind, rank, world, mesh, control
        self._asked: tuple[Any, Tensor] | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def layout(self) -> dict[str, Any]:
        """What the run directory's environment says of it."""
        return {"parallel": self.kind, "processes": self.world}

    def agree(self, value: T) -> T:
        """What the first process says.

        Args:
            value: Of this process.

        Returns:
            That of the first one, in all.
        """
        if self.world == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """What every process says, in order of ranks.

        Args:
            value: Of this process.

        Returns:
            One a process.
        """
        values: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, the same to the bit in all of them.

        Args:
            values: Of this process, any shape; waits for their device.

        Returns:
            Float64 on the CPU; in a run of one process, the values.
        """
        return values if self.world == 1 else self.all(values.double().cpu()[None]).mean(dim=0)

    def mine(self, count: int) -> Tensor:
        """Which of some examples this process evaluates: as many as every other, some twice if they do not come out.

        Args:
            count: How many there are.

        Returns:
            Their indices.
        """
        each = -(-count // self.world)
        return torch.arange(self.rank * each, (self.rank + 1) * each) % count

    def all(self, values: Tensor) -> Tensor:
        """The values of every process, concatenated in order of ranks.

        Args:
            values: Of this process, on the CPU, as many as every other has.

        Returns:
            Them along the first dimension.
        """
        if self.world == 1:
            return values
        found = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(found, values, group=self.control)
        return torch.cat(found)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier(group=self.control)

    def stopping(self, asked: bool) -> bool:
        """Whether any process was asked to stop before its previous step; called by all in every step.

        The answer comes a step late, so that no process waits for it.

        Args:
            asked: Whether this one was.

        Returns:
            The same in all processes.
        """
        if self.world == 1:
            return asked
        before, flag = self._asked, torch.tensor(int(asked))
        self._asked = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.control, async_op=True), flag
        if before is None:
            return False
        work, answer = before
        work.wait()
        return bool(answer)

    def leave(self) -> None:
        """Nothing is under way after this."""
        if self._asked is not None:
            self._asked[0].wait()
            self._asked = None


ALONE = Ranks()
"""A run in one process."""


@contextmanager
def joined(parallel: str, device: torch.device) -> Iterator[Ranks]:
    """Join the other processes of a run, if there are any, and make sure that none outlives a failure of another.

    Joins the default process group, and makes it (NCCL for CUDA, gloo for the CPU) if torchrun started this process and
    there is none yet. It stays until the process ends. A process that fails tells the others why, and has to end: they
    wait for it until it does, and then raise what it told.

    Args:
        parallel: ddp, fsdp, none (this process is alone, whatever started it) or auto (ddp if there are several).
        device: This process's.

    Yields:
        The processes.

    Raises:
        InputError: If `parallel` is none of these, or a run of these processes failed before.
        OtherProcessError: If another process failed.
    """
    require(parallel in KINDS, "parallel", parallel, f"one of {', '.join(KINDS)}")
    there = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size() if there else int(os.environ.get("WORLD_SIZE", "1"))
    kind = ("ddp" if world > 1 else "none") if parallel == "auto" else parallel
    if kind == "none":
        yield ALONE
        return
    if _broken and world > 1:
        raise InputError(f"A run of these processes failed ({_broken[0]}): end them before they train another one.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not there:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        alone: dict[str, Any] = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0}
        dist.init_process_group(backend, world_size=world, timeout=PATIENCE, **alone)
        atexit.register(_leave)
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (world,)) if kind == "fsdp" else None
    ranks = Ranks(kind, dist.get_rank(), world, mesh, _control(id(dist.group.WORLD)))
    try:
        yield ranks
        ranks.leave()
    except Interrupted:
        ranks.leave()
        raise
    except Exception as error:
        other = _blame(error, ranks)
        _broken.append(other or f"{type(error).__name__}: {error}")
        if other is None:
            raise
        raise OtherProcessError(other) from None


def local_device(device: torch.device | str | None) -> torch.device:
    """Where this process trains: the CUDA device of its local rank if there is one and no other was asked for.

    Args:
        device: What was asked for.

    Returns:
        The device.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda" and where.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return where


@cache
def _control(world: int) -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _blame(error: Exception, ranks: Ranks) -> str | None:
    """Tell the others what went wrong here, or learn what went wrong there: then a sentence."""
    if ranks.world == 1:
        return None
    own = f"process {ranks.rank} of {ranks.world} failed: {type(error).__name__}: {error}"
    try:
        store = dist.distributed_c10d._get_default_store()
        told = store.compare_set(FAILED, "", own).decode()
    except Exception:  # the store was another process's
        told = ""
    lost = isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
    if not lost:
        return None
    silent = f"another process than {ranks.rank} of {ranks.world} ended without a word: it may have been killed"
    return told if told and told != own else silent


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
