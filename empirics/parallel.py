# pyright: reportPrivateImportUsage=false
"""One run in several processes started by torchrun: replicated (DDP) or sharded (FSDP2) weights, one run directory.

What is computed does not depend on how many processes compute it: a step's batch is cut into parts in the same way, and
what is logged differs in the last digits only, by the order of float32 sums.

Run on CPUs with gloo, in up to two processes. The code for CUDA and NCCL has not been run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from empirics import optimizers
from empirics.config import TrainConfig
from empirics.data import Images, Text
from empirics.directory import RunDirectory
from empirics.models import GPT2Config
from empirics.plan import Probes
from empirics.ranks import Ranks
from empirics.records import Record
from theory.errors import require
from theory.optimizers import SGD, Adam, AdamW, Lion, NormalizedMomentum, Signum

SHARDED = (SGD, Adam, AdamW, Lion, Signum, NormalizedMomentum)
"""Optimizers that do on shards what they do on whole tensors. Muon (torch's) and Hyperball do not."""


def check(ranks: Ranks, config: TrainConfig, model: nn.Module) -> None:
    """Make sure that a run can be trained by these processes.

    Args:
        ranks: The run's processes.
        config: The run.
        model: Its model.

    Raises:
        InputError: If not; says what can be done.
    """
    parts = math.lcm(config.accumulate, ranks.world)
    even = f"a multiple of {parts} for {ranks.world} processes and accumulate = {config.accumulate}"
    require(config.batch_size % parts == 0, "batch_size", config.batch_size, even)
    normalised = any(isinstance(module, _BatchNorm) for module in model.modules())
    fits = not normalised or config.accumulate % ranks.world == 0
    allowed = f"a multiple of {ranks.world}, the number of processes: BatchNorm sees one micro-batch at a time"
    require(fits, "accumulate", config.accumulate, allowed)
    stochastic = config.precision.startswith("emulated") and config.precision.endswith("stochastic")
    require(ranks.world == 1 or not stochastic, "precision", config.precision, "another one for several processes")
    if ranks.kind == "fsdp":
        check_sharded(config)


def micro_batches(ranks: Ranks, data: Text | Images, step: int, config: TrainConfig) -> list[tuple[Tensor, Tensor]]:
    """What this process trains on in a step, one micro-batch after the other.

    A step is cut into lcm(accumulate, processes) parts: those of a run in one process, if the number of processes
    divides accumulate. Ranks in order have as many of them each.

    Args:
        ranks: The run's processes.
        data: The opened data.
        step: The step.
        config: The run.

    Returns:
        Inputs and targets of each part.
    """
    size = config.batch_size
    mine = data.batch(step, size) if ranks.world == 1 else data.part(step, size, rank=ranks.rank, world=ranks.world)
    inputs, targets = (x.split(size // math.lcm(config.accumulate, ranks.world)) for x in mine)
    return list(zip(inputs, targets, strict=True))


def reseed(ranks: Ranks, seed: int, step: int) -> None:
    """Give each of several processes random numbers of its own, a function of seed, step and rank.

    Args:
        ranks: The run's processes.
        seed: That of the run.
        step: The step.
    """
    if ranks.world > 1:
        words = np.random.SeedSequence((seed, step, ranks.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0] >> np.uint64(1)))


def shard(ranks: Ranks, model: nn.Module) -> None:
    """Under fsdp, leave a shard of every tensor in each process; before the optimizer is built.

    Args:
        ranks: The run's processes.
        model: A GPT-2; its parameters become DTensors.
    """
    if ranks.kind != "fsdp":
        return
    from torch.distributed.fsdp import fully_shard

    for block in model.transformer.h:  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
        fully_shard(block, mesh=ranks.mesh)
    fully_shard(model, mesh=ranks.mesh, reshard_after_forward=True)  # so that averages can be evaluated


def passes(
    ranks: Ranks, model: nn.Module
) -> tuple[Callable[..., Tensor], Callable[[bool], AbstractContextManager[Any]]]:
    """A model's loss, and what a pass has to be inside of.

    Args:
        ranks: The run's processes.
        model: Has a method `loss`.

    Returns:
        The loss of this process's part; and a function of whether the pass is the step's last, giving a context in
        which gradients are summed over the processes only then.
    """
    if ranks.kind == "ddp":
        device = next(model.parameters()).device
        replica = nn.parallel.DistributedDataParallel(
            Loss(model), device_ids=[device.index] if device.type == "cuda" else None
        )
        return replica, lambda last: nullcontext() if last else replica.no_sync()
    if ranks.kind == "fsdp":
        within: Any = model

        @contextmanager
        def passing(last: bool) -> Iterator[None]:
            within.set_requires_gradient_sync(last)
            yield

        return within.loss, passing
    return model.loss, lambda last: nullcontext()  # pyright: ignore[reportReturnType]


def clip(ranks: Ranks, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """As `empirics.optimizers.clip`, by the norm of the whole gradient where each process has a shard of it.

    Args:
        ranks: The run's processes.
        parameters: Those without a gradient are ignored.
        limit: Largest total norm.

    Returns:
        The total norm before clipping.
    """
    if ranks.kind != "fsdp":
        return optimizers.clip(parameters, limit)
    grads: list[Any] = [p.grad for p in parameters if p.grad is not None]
    shards = [grad.to_local() for grad in grads]
    square = torch.stack(torch._foreach_norm(shards)).square().sum()
    dist.all_reduce(square, group=ranks.mesh.get_group())
    total = square.sqrt()
    torch._foreach_mul_(shards, torch.clamp(limit / (total + 1e-6), max=1.0))
    return total


def directory(ranks: Ranks, path: Path, config: Any) -> RunDirectory:
    """The run directory: written by the first process, only read by the others.

    Args:
        ranks: The run's processes.
        path: The directory.
        config: The run.

    Returns:
        It, a context manager.
    """
    return RunDirectory(path, config) if ranks.first else Onlooker(path, config)


def check_sharded(config: TrainConfig) -> None:
    """Raise `InputError` if a run needs whole tensors where fsdp leaves shards; says what can be done."""
    ddp = "or parallel ddp, which allows everything"
    require(isinstance(config.model, GPT2Config), "parallel", "fsdp", "ddp for other models than GPT-2")
    names = ", ".join(kind.__name__ for kind in SHARDED)
    require(isinstance(config.optimizer, SHARDED), "optimizer", config.optimizer, f"one of {names} under fsdp, {ddp}")
    plain = config.precision in ("auto", "float32", "bf16")
    require(plain, "precision", config.precision, f"float32 or bf16 under fsdp, {ddp}")
    for name in ("fixed_norm", "match", "twin"):
        require(not getattr(config, name), name, getattr(config, name), f"empty under fsdp, {ddp}")
    given, none = config.probes, Probes()
    odd = [name for name in vars(none) if name != "activations" and getattr(given, name) != getattr(none, name)]
    instead = "left out under fsdp: `decaylab probe` measures its checkpoints"
    require(not odd, "probes." + "".join(odd[:1]), getattr(given, odd[0]) if odd else None, instead)


class Loss(nn.Module):
    """A model whose forward pass is its loss, as DistributedDataParallel needs it.

    Args:
        model: Has a method `loss`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return self.model.loss(inputs, targets)


class Onlooker(RunDirectory):
    """A run directory that another process writes: what would be written is dropped.

    Args:
        path: The directory.
        config: The run's configuration.
    """

    writes = False

    def __init__(self, path: Path, config: Any) -> None:
        self.path, self.config, self.record = path, config, Record(path)

    def __exit__(self, *_: object) -> None: ...

    def create(self, **_: Any) -> None:
        """Left to the writer."""

    def amend(self) -> None:
        """Left to the writer."""

    def append(self, *_: Any, **__: Any) -> None:
        """Left to the writer."""

    def truncate(self, step: int) -> None:
        """Left to the writer."""

    def write_json(self, name: str, value: Any) -> None:
        """Left to the writer."""

    def finish(self) -> None:
        """Left to the writer."""
