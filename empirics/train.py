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
from empirics.optimizers import clip
from empirics.origins import load_weights
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
) -> Record:
    """Train one network in the run directory root/<name>-<hash8>, or continue where it was left.

    On the CPU, a run that was killed and resumed is bitwise the run that was not. A finished run is not run again.

    Args:
        config: The run.
        root: Folder of run directories.
        predict: Called with model, optimizer and config before step 0 of a new run; its result is stored first. Not
            called where the laws do not apply, see `TrainConfig.predictable`.
        resume: Continue a partial run; if false, a partial run is an error.
        progress: Called with steps done, steps in all and the latest loss, whenever measurements are written.
        device: Where to train; if omitted, CUDA if there is one, otherwise the CPU.
        cache: Folder for tokens, see `TextData.open`.

    Returns:
        The record; its status says whether the run finished or diverged.

    Raises:
        InputError: If the data are too few, another process writes the directory, or it holds another run.
        DiskFullError: If the disk is full; the last checkpoint is intact.
        Interrupted: After Ctrl-C or SIGTERM, with the state saved; exit code 130.
    """
    path = Path(root) / config.directory
    record = Record(path)
    RunDirectory.check(path, config)
    if record.status in ("finished", "diverged"):
        if record.config.probes != config.probes:
            other = "is over, and was measured by other probes: `decaylab probe` measures its checkpoints"
            warnings.warn(f"{path} {other}.", stacklevel=2)
        return record
    if record.status == "partial" and not resume:
        raise InputError(f"{path} holds a partial run: resume it, or remove the directory to start over.")

    predict = predict if config.predictable else None
    with threads(config.threads), tf32(config.tf32), interruptible() as stop:
        # ---- data
        data = config.data.open(cache)
        data.check(config.steps, config.batch_size)
        if record.status == "partial" and data.hash != record.description["data_hash"]:
            raise InputError(f"{path} was trained on other data: source {config.data.source!r} has changed since.")

        # ---- model and optimizer
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = config.model.build(config.seed).to(where)
        if config.init_from:
            load_weights(config.init_from, model, Path(root))
        optimizer = optimizer_of(config, model)
        extras = Extras(config, model, optimizer, data, root)
        train_step = stepper(config, data, model, optimizer, extras=extras)

        # ---- run directory: new, or continued from its newest checkpoint
        with RunDirectory(path, config) as run:
            if record.status == "new":
                run.create(
                    environment=environment(where),
                    data_hash=data.hash,
                    source=Path(__file__).read_text(),
                    prediction=predict(model, optimizer, config) if predict is not None else None,
                )
            elif record.config != config:  # other probes
                run.amend()
            torch.manual_seed(config.seed)
            extra: dict[str, Any] = {}
            start = checkpoint.load_latest(path / "checkpoints", model=model, optimizer=optimizer, extra=extra)
            extras.load_state_dict(extra)
            probes = Watching(config, model, optimizer, data, start=start, state=extra.get("probes"))
            log = Log(config, run, model, optimizer, probes, start=start)

            # ---- loop
            for step in range(start, config.steps):
                probes.before(step)
                log.add(step, *train_step(step))
                done, last = step + 1, step + 1 == config.steps
                stopping = stop.made and not last  # looked at once: what comes later waits for the next step
                evaluating = last or due(done, config.eval_every)
                saving = last or stopping or due(done, config.checkpoint_every)
                if not (evaluating or saving or due(done, config.flush_every)):
                    continue
                if not log.flush(sync=saving):
                    break  # diverged
                if progress is not None:
                    progress(done, config.steps, log.recent[-1])
                if evaluating:
                    found = extras.evaluate(visited=done * config.batch_size)
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
                    )
                    log.write_timing(data.tokens_per_step(config.batch_size))
                if stopping:
                    raise Interrupted(
                        f"{path} was stopped and saved after {done} of {config.steps} steps: "
                        "the same command continues it."
                    )
                log.resume_clock()

            # ---- end
            probes.close()
            run.finish()
    record = Record(path)
    if record.status == "diverged" and config.arithmetic(where).low:
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
) -> Step:
    """One training step as a function of its number.

    Args:
        config: The run.
        data: The opened data.
        model: The network, on its device.
        optimizer: Its optimizer, from `optimizer_of`.
        extras: What else has a part in its steps; made here if omitted.

    Returns:
        A function of the step that trains on the step's batch and returns the loss before it (nats) and, if gradients
        are clipped, their total norm before clipping: scalars on the device, which it does not wait for.
    """
    around = extras or Extras(config, model, optimizer, data)
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    cuda, arithmetic = device.type == "cuda", around.arithmetic
    rounded = arithmetic.rounded(around.noise)
    loss_of = torch.compile(model.loss) if config.compiled(device.type) else model.loss
    clipped = (lambda: clip(parameters, config.grad_clip)) if config.grad_clip else None

    def to_device(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if cuda and not tensor.is_cuda else tensor.to(device)

    def micro_step(inputs: Tensor, targets: Tensor) -> Tensor:
        with rounded:
            with torch.autocast(device.type, dtype=arithmetic.dtype, enabled=arithmetic.autocast):
                loss = loss_of(to_device(inputs), to_device(targets))
            loss = loss / config.accumulate if config.accumulate > 1 else loss
            around.backward(loss)
        return loss.detach()

    def train_step(step: int) -> tuple[Tensor, Tensor | None]:
        around.set_rates(step)
        parts = [x.split(config.micro_batch) for x in data.batch(step, config.batch_size)]
        losses = [micro_step(*part) for part in zip(*parts, strict=True)]
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
