"""Two lines in anyone's loop: what weight decay is predicted to do to a run, and what it does, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from bridge.compare import Comparison, compare
from bridge.describe import LossFunction
from bridge.sinks import Sink, sinks_of
from bridge.watch_files import script_name
from bridge.watch_forecast import Forecast, spread
from bridge.watch_session import Session
from bridge.watch_subject import Subject
from bridge.watch_table import audit_table, watch_table
from empirics.probes.bill import Cost
from theory.errors import InputError, whole
from theory.optimizers import Optimizer
from theory.schedules import Schedule


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: Schedule | Any | None = None,
    total_steps: int | None = None,
    every: int = 10,
    flush_every: int = 100,
    start: int = 0,
    name: str | None = None,
    root: Path | str = "runs",
    sinks: Sequence[str | Sink] | str = (),
    spec: Optimizer | None = None,
    loss_fn: LossFunction | None = None,
    batch: Any = None,
) -> Watch:
    """Watch a training run: predict, measure and compare, without touching it.

    Learning rates, decay, betas and momenta are read from the optimizer's groups at every step, so that the laws can
    be evaluated on the schedule as it was: that needs nothing but these two arguments. With `total_steps` they are also
    evaluated on the schedule as announced, and that prediction is in the run directory before step 0.

    Training is bitwise what it is without. Hooks are torch's own; nothing waits for the device but a flush. Whatever
    goes wrong after this call ends the watch with one sentence in the log, never the training.

    Args:
        model: Plain, compiled, in DistributedDataParallel or sharded by `fully_shard`.
        optimizer: The one that steps; measured if theory has no law for it, or for a group of it, and says so.
        schedule: What the learning rate is going to do: one of theory's shapes, or the torch scheduler that is stepped
            once after each step. Constant if omitted and no scheduler is attached.
        total_steps: Length of the run.
        every: Measure norms and angles every so many steps.
        flush_every: Fetch from the device and write every so many steps.
        start: Number of the next step (that of the checkpoint, when resuming).
        name: First part of the run directory's name; the running script's name if omitted.
        root: Folder of run directories.
        sinks: Names (csv, tensorboard, wandb, mlflow) or objects with the methods of `bridge.sinks.Sink`.
        spec: The optimizer's specification where the live one cannot tell: an unknown class, another decay convention.
        loss_fn: Scalar loss of (model, batch): then scale invariance is tested, which SGD's laws need.
        batch: Given to `loss_fn`.

    Returns:
        The watch; a context manager.

    Raises:
        InputError: If the optimizer holds none of the model's trainable parameters, a parameter is watched already, or
            an argument is not allowed.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(4, 4, bias=False)
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        >>> with watch(model, optimizer, total_steps=20, root=tempfile.mkdtemp()) as w:
        ...     for _ in range(20):
        ...         model(torch.randn(8, 4)).square().sum().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> w.table()[["tensor", "step"]].values.tolist(), w.comparison().preregistered
        ([['weight', 10]], True)
    """
    return Watch(
        Subject(model, optimizer, schedule, total_steps, start, spec, loss_fn, batch),
        every=whole("every", every, low=1),
        flush_every=whole("flush_every", flush_every, low=1),
        name=name or script_name(),
        root=Path(root),
        sinks=sinks_of(sinks),
    )


class Watch(Session):
    """A run being watched; made by `watch`."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.close(why=f"{kind.__name__}: {error}" if kind is not None else "")

    def audit(self) -> pd.DataFrame:
        """What acts on which parameter.

        Returns:
            As `dl.audit`, and whether each tensor is predicted, or why not.
        """
        return audit_table(self.subject)

    def so_far(self) -> Forecast:
        """The laws evaluated on the rates that were seen: no prediction made before the run, and it says so.

        Returns:
            The forecast from the first step on; tensors without a law, with the reason, in `reasons`.
        """
        self.flush()
        return self.subject.seen(self._rates)

    def comparison(self, *, ahead: bool | None = None) -> Comparison:
        """Compare what was measured with what was predicted.

        Args:
            ahead: Whether with the prediction written before step 0, or with the laws evaluated on the rates as they
                were; if omitted with the former, where there is one and the rates were as announced.

        Returns:
            The comparison; `preregistered` says which of the two.

        Raises:
            InputError: If nothing was measured yet, or nothing can be predicted; says why.
        """
        self.flush()
        if not self._measured:
            raise InputError("Nothing was measured yet: take a step first.")
        if self._is_ahead() if ahead is None else ahead:
            return compare(self.record)
        seen = self.so_far()
        if not seen.predictions:
            raise InputError(f"Nothing can be predicted: {'; '.join(sorted(set(seen.reasons.values())))}.")
        return compare(self.record, seen.table(spread(self._measured)))

    def table(self) -> pd.DataFrame:
        """Every tensor as it is now, beside what is predicted for it.

        Returns:
            Columns tensor, step (the latest measured), lr, weight_decay, norm, norm_predicted, norm_residual, angle
            (rad/step, RMS of the last ten measured steps), angle_predicted, angle_residual (predicted/measured - 1),
            and note: why there is no prediction, or what is odd about the tensor. Empty before the first step.
        """
        self.flush()
        chosen = self.prediction if self.prediction is not None and self._is_ahead() else None
        if self._recent and chosen is None:
            chosen = self.so_far()
        return watch_table(self.subject, self._rates, list(self._recent), chosen, len(self._measured))

    def cost(self) -> Cost:
        """What watching costs: measured seconds and the share of all the time since it began; waits for the device.

        Returns:
            The bill: `rotation` and `fetch` in the device's time, the others in the host's.
        """
        device, host = self._device.cost(), self._host.cost()
        return Cost((*device.items, *host.items), host.seconds)

    def _is_ahead(self) -> bool:
        if self.prediction is None:
            return False
        departure = self.subject.departure(self._rates)
        if departure:
            self._note(departure)
        return not departure
