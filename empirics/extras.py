"""What acts around an optimizer's step: rates of the step, scaled loss, rounded weights, fixed norms, averages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import relations
from empirics.averages import Averages
from empirics.config import TrainConfig
from empirics.data import Images, Text, TextData
from empirics.evaluate import Evaluation, evaluate
from empirics.models import GPT2Config
from empirics.optimizers import build_optimizer, set_rates
from empirics.origins import located
from empirics.precision import round_weights
from empirics.ranks import ALONE, Ranks
from empirics.relations import Matched, Twin, matrices


def optimizer_of(config: TrainConfig, model: nn.Module) -> Optimizer:
    """The optimizer of a run.

    Args:
        config: The run.
        model: Its model, on its device.

    Returns:
        The optimizer, with the groups that the run needs.
    """
    apart = relations.apart(config, model)
    return build_optimizer(config.optimizer, model, decayed=config.decay, others=config.others, apart=apart)


class Extras:
    """Everything of a run that has a part in its steps besides model, data and optimizer; with its state.

    Hooks are registered in the order in which they act: shared rates, projection, rounding, averages; then probes.

    Args:
        config: The run.
        model: Its model, on its device, with its first weights.
        optimizer: From `optimizer_of`.
        data: The opened data.
        runs: Folder of run directories, for runs that the run refers to.

    Raises:
        InputError: If a run that it refers to is missing or does not fit.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, data: Text | Images, runs: Path | str = "."
    ) -> None:
        self.config, self.model, self.optimizer, self.data = config, model, optimizer, data
        device = next(model.parameters()).device
        self.arithmetic = config.arithmetic(device)
        self.noise = self.arithmetic.noise(config.seed, device)
        self.scaler = torch.amp.GradScaler(device.type) if self.arithmetic.scaled else None
        self._shape = config.schedule.at(range(config.steps), config.steps).tolist()
        decay = config.weight_decay_schedule
        self._decay_shape = decay.at(range(config.steps), config.steps).tolist() if decay is not None else None
        self._rates = self._followed(Path(runs), device)
        self._views = matrices(model) if config.fixed_norm else ()
        self._norms = self._wanted_norms()
        if self._views:
            self._project()
            optimizer.register_step_post_hook(self._project)
        if self.arithmetic.weights:
            round_weights(optimizer, 7, 8, self.arithmetic.rounding, self.noise)
        self.averages = Averages(config.averages, model, optimizer)

    def set_rates(self, step: int) -> None:
        """Set learning rate and decay of every group for a step.

        Args:
            step: The step.
        """
        config, decay = self.config, 1.0 if self._decay_shape is None else self._decay_shape[step]
        set_rates(self.optimizer, config.optimizer, self._shape[step], others=config.others, decay_shape=decay)
        if self._rates is not None:
            self._rates.set(step)

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled if the precision needs that.

        Args:
            loss: Scalar.
        """
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, clip: Callable[[], Tensor] | None) -> Tensor | None:
        """Clip the gradients, unscaled, and take the step, unless a scaled gradient has overflowed.

        Args:
            clip: Clips them and returns their total norm; None: no clipping.

        Returns:
            The total norm; 0 where the step was left out.
        """
        if self.scaler is None:
            total = clip() if clip is not None else None
            self.optimizer.step()
            return total
        self.scaler.unscale_(self.optimizer)
        total = clip() if clip is not None else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return None if total is None else torch.where(total.isfinite(), total, 0.0)

    def evaluate(self, *, visited: int, ranks: Ranks = ALONE) -> Evaluation:
        """Evaluate the model, and beside it every average of its weights that has begun.

        Args:
            visited: Text windows that the model was trained on so far.
            ranks: The run's processes.

        Returns:
            As from `evaluate`; of the averages <quantity>_average, by average.
        """
        size = evaluated_at_once(self.config)
        measured = lambda: evaluate(self.model, self.data, visited=visited, batch_size=size, ranks=ranks)
        found = measured()
        for name in self.averages.ready():
            with self.averages.applied(name):
                averaged = measured()
            for quantity, value in averaged.items():
                if isinstance(value, float):
                    plain = quantity.removesuffix("_stderr")
                    part = found.setdefault(f"{plain}_average{quantity[len(plain) :]}", {})
                    assert isinstance(part, dict)
                    part[name] = value
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; nothing for a run without extras."""
        state: dict[str, Any] = {}
        if self.noise is not None:
            state["noise"] = self.noise.get_state()
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        if self.config.averages:
            state["averages"] = self.averages.state_dict()
        if self.config.fixed_norm == "initial":
            state["norms"] = self._norms
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, or from one of a run in another precision.

        Args:
            state: The state; what it lacks stays as it is.
        """
        if self.noise is not None and "noise" in state:
            self.noise.set_state(state["noise"])
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        if self.config.averages and "averages" in state:
            self.averages.load_state_dict(state["averages"])
        if "norms" in state:
            self._norms = state["norms"].to(self._norms)

    def _followed(self, runs: Path, device: torch.device) -> Matched | Twin | None:
        config = self.config
        if config.match:
            return Matched(located("match", config.match, runs), config, self.model, self.optimizer)
        if not config.twin:
            return None
        inputs, targets = (x[: config.micro_batch].to(device) for x in self.data.batch(0, config.batch_size))
        loss = lambda model, batch: model.loss(*batch)
        record = located("twin", config.twin, runs)
        return Twin(record, config, self.model, self.optimizer, loss, (inputs, targets))

    def _wanted_norms(self) -> Tensor:
        if self.config.fixed_norm == "initial":
            return torch.stack([torch.linalg.vector_norm(view.view()) for view in self._views])
        device = next(self.model.parameters()).device
        return torch.full((len(self._views),), float(self.config.fixed_norm), device=device)

    @torch.no_grad()
    def _project(self, *_: Any) -> None:
        for view, norm in zip(self._views, self._norms, strict=True):
            w = view.view()
            w.mul_(norm / torch.linalg.vector_norm(w).clamp_min(torch.finfo(w.dtype).tiny))


def evaluated_at_once(config: TrainConfig) -> int:
    """How many windows or images an evaluation takes at a time: 256, or fewer where their logits would be above 2 GiB.

    Args:
        config: The run.

    Returns:
        The number.
    """
    if isinstance(config.model, GPT2Config) and isinstance(config.data, TextData):
        return max(1, min(256, 2**29 // (config.data.block_size * config.model.vocab_size)))
    return 256


@contextmanager
def tf32(allowed: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 in float32 products on CUDA inside the block.

    Args:
        allowed: None leaves it as it is.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        if allowed is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
