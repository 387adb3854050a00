"""The training loop, read from top to bottom: data, model, optimizer, run directory, loop, end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.data import Images, Text
from empirics.directory import Prediction, RunDirectory
from empirics.environment import environment
from empirics.extras import Extras, optimizer_of, tf32
from empirics.interrupt import Interrupted, interruptible
from empirics.log import Log
from empirics.models import GPT2, VGG, PreActResNet, ResNet
from empirics.origins import load_weights
from empirics.parallel import check, clip, directory, micro_batches, passes, reseed, shard
from empirics.ranks import ALONE, Ranks, joined, local_device
from empirics.records import Record
from empirics.watching import Watching
from theory.errors import InputError

Model = GPT2 | ResNet | PreActResNet | VGG
Predict = Callable[[nn.Module, Optimizer, TrainConfig], Prediction]
Progress = Callable[[int, int, float], None]
Step = Callable[[int], tuple[Tensor, Tensor | None]]


def train(
    config: TrainConfig,
    root: Path | str,
    *,
    predict: Predict | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    device: torch.device | str | None = None,
    cache: Path | None = None,
    parallel: str = "auto",
) -> Record:
    """Train one network in the run directory root/<name>-<hash8>, or continue where it was left.

    On the CPU, a run that was killed and resumed is bitwise the run that was not. A finished run is not run again.

    Called in every process that torchrun started, all of them train one run together, see `empirics.parallel`: the
    configuration, its hash and the run directory are those of one process, batch_size is that of all together, and the
    numbers are equal but for the order of float32 sums. Dropout has random numbers of its own in each process. All
    processes must see the folder of runs.

    Args:
        config: The run.
        root: Folder of run directories.
        predict: Called with model, optimizer and config before step 0 of a new run; its result is stored first. Not
            called where the laws do not apply, see `TrainConfig.predictable`.
        resume: Continue a partial run; if false, a partial run is an error.
        progress: Called with steps done, steps in all and the latest loss, whenever measurements are written.
        device: Where to train; if omitted, CUDA if there is one, otherwise the CPU.
        cache: Folder for tokens, see `TextData.open`.
        parallel: ddp (every process has the weights), fsdp (each a shard of them: GPT-2 only), none (this process is
            alone), or auto: ddp if torchrun started several processes.

    Returns:
        The record; its status says whether the run finished or diverged.

    Raises:
        InputError: If the data are too few, another process writes the directory, or it holds another run.
        DiskFullError: If the disk is full; the last checkpoint is intact.
        Interrupted: After Ctrl-C or SIGTERM, with the state saved; exit code 130.
        OtherProcessError: If another process of the run failed.
    """
    path, where = Path(root) / config.directory, local_device(device)
    with threads(config.threads), tf32(config.tf32), interruptible() as stop, joined(parallel, where) as ranks:
        # ---- is there anything to do?
        record = Record(path)
        RunDirectory.check(path, config)
        status = ranks.agree(record.status)
        if status in ("finished", "diverged"):
            if record.config.probes != config.probes:
                other = "is over, and was measured by other probes: `decaylab probe` measures its checkpoints"
                warnings.warn(f"{path} {other}.", stacklevel=2)
            return record
        if status == "partial" and not resume:
            raise InputError(f"{path} holds a partial run: resume it, or remove the directory to start over.")

        # ---- data
        data = config.data.open(cache)
        if isinstance(data, Images):
            data.to(where)
        data.check(config.steps, config.batch_size)
        if status == "partial" and data.hash != record.description["data_hash"]:
            raise InputError(f"{path} was trained on other data: source {config.data.source!r} has changed since.")

        # ---- model, what is expected of it, and optimizer
        model = config.model.build(config.seed).to(where)
        if config.init_from:
            load_weights(config.init_from, model, Path(root))
        check(ranks, config, model)
        expected = None
        if predict is not None and config.predictable and status == "new" and ranks.first:
            expected = predict(model, optimizer_of(config, model), config)
        shard(ranks, model)
        optimizer = optimizer_of(config, model)
        extras = Extras(config, model, optimizer, data, root)
        train_step = stepper(config, data, model, optimizer, extras=extras, ranks=ranks)

        # ---- run directory: new, or continued from its newest checkpoint
        with directory(ranks, path, config) as run:
            if status == "new":
                run.create(
                    environment=environment(where) | ranks.layout,
                    data_hash=data.hash,
                    source=Path(__file__).read_text(),
                    prediction=expected,
                )
            elif record.config != config:  # other probes
                run.amend()
            torch.manual_seed(config.seed)
            extra: dict[str, Any] = {}
            start = checkpoint.load_latest(
                path / "checkpoints", model=model, optimizer=optimizer, extra=extra, ranks=ranks
            )
            extras.load_state_dict(extra)
            probes = Watching(config, model, optimizer, data, start=start, state=extra.get("probes"))
            log = Log(config, run, model, optimizer, probes, start=start, ranks=ranks)

            # ---- loop
            for step in range(start, config.steps):
                probes.before(step)
                log.add(step, *train_step(step))
                done, last = step + 1, step + 1 == config.steps
                asked = ranks.stopping(stop.made)  # looked at once: what comes later waits for the next step
                stopping = asked and not last
                evaluating = last or due(done, config.eval_every)
                saving = last or stopping or due(done, config.checkpoint_every)
                if not (evaluating or saving or due(done, config.flush_every)):
                    continue
                if not log.flush(sync=saving):
                    break  # diverged
                if progress is not None and ranks.first:
                    progress(done, config.steps, log.recent[-1])
                if evaluating:
                    found = extras.evaluate(visited=done * config.batch_size, ranks=ranks)
                    log.write(step, found | log.summary(last=last))
                if saving:
                    checkpoint.save(
                        path / "checkpoints",
                        done,
                        model=model,
                        optimizer=optimizer,
                        keep=config.keep_checkpoints,
                        keep_every=config.keep_every,
                        extra={"probes": probes.state_dict()} | extras.state_dict(),
                        ranks=ranks,
                    )
                    log.write_timing(data.tokens_per_step(config.batch_size))
                if stopping:
                    said = f"{path} was stopped and saved after {done} of {config.steps} steps"
                    raise Interrupted(f"{said}: the same command continues it." if ranks.first else "")
                log.resume_clock()

            # ---- end
            probes.close()
            run.finish()
        ranks.wait()
    record = Record(path)
    if ranks.first and record.status == "diverged" and config.arithmetic(where).low:
        from empirics.replay import explain  # replays with this module's own step

        explain(record, config, device=where, cache=cache)
    return record


def stepper(
    config: TrainConfig,
    data: Text | Images,
    model: Model,
    optimizer: Optimizer,
    *,
    extras: Extras | None = None,
    ranks: Ranks = ALONE,
) -> Step:
    """One training step as a function of its number.

    Args:
        config: The run.
        data: The opened data.
        model: The network, on its device.
        optimizer: Its optimizer, from `optimizer_of`.
        extras: What else has a part in its steps; made here if omitted.
        ranks: The run's processes.

    Returns:
        A function of the step that trains on the step's batch and returns the loss before it (nats), of several
        processes that of this one's part, and, if gradients are clipped, their total norm before clipping: scalars on
        the device, which it does not wait for.
    """
    around = extras or Extras(config, model, optimizer, data)
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    cuda, arithmetic = device.type == "cuda", around.arithmetic
    rounded = arithmetic.rounded(around.noise)
    loss_of, passing = passes(ranks, model)
    loss_of = torch.compile(loss_of) if config.compiled(device.type) else loss_of
    clipped = (lambda: clip(ranks, parameters, config.grad_clip)) if config.grad_clip else None

    def to_device(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if cuda and not tensor.is_cuda else tensor.to(device)

    def micro_step(inputs: Tensor, targets: Tensor, *, number: int, count: int) -> Tensor:
        with rounded, passing(number + 1 == count):
            with torch.autocast(device.type, dtype=arithmetic.dtype, enabled=arithmetic.autocast):
                loss = loss_of(to_device(inputs), to_device(targets))
            loss = loss / count if count > 1 else loss
            around.backward(loss)
        return loss.detach()

    def train_step(step: int) -> tuple[Tensor, Tensor | None]:
        around.set_rates(step)
        reseed(ranks, config.seed, step)
        parts = micro_batches(ranks, data, step, config)
        losses = [micro_step(*part, number=i, count=len(parts)) for i, part in enumerate(parts)]
        grad_norm = around.step(clipped)
        optimizer.zero_grad()
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum(), grad_norm

    return train_step


def due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every > 0 and done % every == 0


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use so many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
