"""Rotation driven by the watch's own hooks: closures, gradient scalers and parameters that come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from bridge.watch_rates import RateLog
from empirics.probes.rotation import Quantities, Rotation
from theory.errors import InputError

Signature = list[tuple[int, bool]]


class _Driven(Rotation):
    """A rotation probe without hooks of its own, so that its time can be charged and a closure awaited."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, every: int, start: int) -> None:
        super().__init__(model, optimizer, every=every, start=start)
        self.close()

    def before(self, optimizer: Optimizer) -> None:
        self._before_step(optimizer)

    def after(self) -> None:
        self._after_step()


class Meter:
    """Measures every so many calls of the optimizer's step, whatever its groups hold by then.

    Args:
        model: The model.
        optimizer: Its optimizer.
        every: Measure calls 0, every, 2*every, ...

    Raises:
        InputError: If the optimizer holds no trainable tensor of the model.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, every: int) -> None:
        self.model, self.every, self.call = model, every, 0
        self._probe = _Driven(model, optimizer, every=every, start=0)
        self._retired: list[_Driven] = []
        self._signature = signature(optimizer)
        self._scales: dict[int, Tensor] = {}
        self.came: dict[str, int] = {}
        """Tensors that joined after the beginning, and the call at which they did."""
        self.went: dict[str, int] = {}
        """Tensors that were frozen or dropped, and the call at which they were."""

    @property
    def names(self) -> list[str]:
        """The tensors that are measured."""
        return [view.name for view in self._probe.views]

    @property
    def due(self) -> bool:
        """Whether the coming call is measured."""
        return self.call % self.every == 0

    def before(self, optimizer: Optimizer) -> None:
        """Look at weights and gradients before the step, at calls that are due."""
        self._renew(optimizer)
        scale = getattr(optimizer, "grad_scale", None)
        if isinstance(scale, Tensor):
            self._scales[self.call] = scale.detach().clone()
        self._probe.before(optimizer)

    def after(self) -> None:
        """Look at the weights after the step, at calls that are due; count the call."""
        self._probe.after()
        self.call += 1

    def flush(self, rates: RateLog) -> list[tuple[int, Quantities]]:
        """Fetch what was measured, filed under steps rather than calls; waits for the device.

        Args:
            rates: Knows which calls were skipped; fetched before.

        Returns:
            Pairs (step, {quantity: {tensor: value}}), in order, one a step.
        """
        found: dict[int, Quantities] = {}
        for probe in (*self._retired, self._probe):
            for call, values in probe.flush():
                step = rates.step_of(call)
                if step is None and "norm0" not in values:
                    continue
                if call in self._scales and "grad_norm" in values:
                    scale = float(self._scales[call])
                    values["grad_norm"] = {name: value / scale for name, value in values["grad_norm"].items()}
                found.setdefault(step or 0, {}).update(values)
        self._retired, self._scales = [], {}
        return sorted(found.items())

    def _renew(self, optimizer: Optimizer) -> None:
        """Measure what the optimizer holds now, if that has changed."""
        now = signature(optimizer)
        if now == self._signature:
            return
        self._signature = now
        try:
            probe = _Driven(self.model, optimizer, every=self.every, start=max(self.call, 1))
        except InputError:  # nothing is trainable any more: what is held has no gradients and is left out anyway
            return
        probe.step = self.call
        before, after = set(self.names), {view.name for view in probe.views}
        self.came |= dict.fromkeys(sorted(after - before), self.call)
        self.went |= dict.fromkeys(sorted(before - after), self.call)
        self._retired.append(self._probe)
        self._probe = probe


def signature(optimizer: Optimizer) -> Signature:
    """Which parameters an optimizer holds, and which of them are trainable."""
    return [(id(p), p.requires_grad) for group in optimizer.param_groups for p in group["params"]]


def after_closure(args: tuple[Any, ...], kwargs: dict[str, Any], action: Callable[[], None]) -> Any:
    """Do something as soon as a step's gradients exist.

    Without a closure they do when the step begins. With one, the step's arguments are returned with the closure in a
    wrapper that acts after its first call: torch's pre-hooks may replace arguments.

    Args:
        args: The step's arguments, the optimizer first.
        kwargs: Its keyword arguments.
        action: What to do.

    Returns:
        None, or new (args, kwargs).
    """
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        action()
        return None
    waiting = [action]

    def wrapped(*given: Any, **named: Any) -> Any:
        loss = closure(*given, **named)
        if waiting:
            waiting.pop()()
        return loss

    if len(args) > 1:
        return (args[0], wrapped, *args[2:]), kwargs
    return args, {**kwargs, "closure": wrapped}
