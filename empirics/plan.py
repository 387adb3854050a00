"""What a run measures besides losses, norms and angles, and at which steps: part of its configuration, not its hash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from empirics.probes.bill import Schedule
from theory.errors import finite, require, whole
from theory.serialize import serializable, settle

ACTIVATIONS_EVERY = 50
"""Default interval of the activations of a GPT-2: their own bill is then below 1 % of a step."""
SCHEDULED = ("activations", "jacobian", "hessian_trace", "hessian_top", "noise_scale", "signal")
WHEN = "a number of steps, 'log:<steps a decade>', 'end', or several joined by +, such as '1000+log:3+end'"

When = int | str


@serializable
@dataclass(frozen=True, kw_only=True)
class Probes:
    """What is measured and when; it changes no bit of the training, and is no part of the run's hash.

    When: a number of steps (every so many; 0: never), "log:<n>" (n steps a decade, evenly on a logarithmic scale),
    "end" (the last step), or several of them joined by +, such as "1000+log:3+end".

    Example:
        >>> schedule = Probes(hessian_trace="40+end").schedule("hessian_trace", steps=100)
        >>> [step for step in range(100) if schedule.due(step)]
        [0, 40, 80, 99]
    """

    activations: When = "auto"
    """Residual stream, attention logits, branches lost in bf16, of the step's forward pass. auto: every 50 steps in a
    GPT-2, never in others."""
    jacobian: When = 0
    """Jacobian norms of the outputs, after the step."""
    hessian_trace: When = 0
    """Trace of the loss's Hessian, after the step."""
    hessian_top: When = 0
    """Largest eigenvalue of the loss's Hessian, after the step."""
    noise_scale: When = 0
    """Gradient noise, signal and their balance, after the step."""
    signal: When = 0
    """Memory of gradients and updates over the steps since it was last recorded."""
    windows: tuple[int, ...] = ()
    """Numbers of steps over which angles are measured, rising, such as 1, 10, 100; none: not at all."""
    windows_every: int = 0
    """Steps between the openings of two such windows; 0: the longest window, one after the other."""
    examples: int = 32
    """Held-out windows of text or training images on which Hessian, noise and a language model's Jacobian are taken,
    always the same."""
    rel_error: float = 0.05
    """Standard error at which the Hessian's trace and eigenvalue may stop, relative."""
    lags: int = 50
    """Longest lag of `signal`, in steps."""

    def __post_init__(self) -> None:
        for name in SCHEDULED:
            value = getattr(self, name)
            if not (name == "activations" and value == "auto"):
                settle(self, **{name: spelled(f"probes.{name}", value)})
        given = self.windows
        spans = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
        spans = tuple(whole("probes.windows", span, low=1) for span in spans)
        require(list(spans) == sorted(set(spans)), "probes.windows", given, "rising numbers of steps")
        every = whole("probes.windows_every", self.windows_every)
        longest = max(spans, default=0)
        require(not every or every >= longest, "probes.windows_every", every, f"0, or at least {longest}")
        settle(
            self,
            windows=spans,
            windows_every=every,
            examples=whole("probes.examples", self.examples, low=3),
            rel_error=finite("probes.rel_error", self.rel_error),
            lags=whole("probes.lags", self.lags),
        )
        require(self.rel_error > 0, "probes.rel_error", self.rel_error, "a positive number")

    def schedule(self, probe: str, *, steps: int, auto: int = 0) -> Schedule | None:
        """When a probe measures.

        Args:
            probe: One of `SCHEDULED`.
            steps: Length of the run, in steps.
            auto: What "auto" stands for.

        Returns:
            Its schedule; None if it is off.
        """
        when = getattr(self, probe)
        parts = str(auto if when == "auto" else when).split("+")
        every = next((int(part) for part in parts if part.isdigit()), 0)
        decade = next((int(part.removeprefix("log:")) for part in parts if part.startswith("log:")), 0)
        last = steps - 1 if "end" in parts else None
        return Schedule(every, decade, last) if every or decade or last is not None else None

    @staticmethod
    def none() -> Probes:
        """All off."""
        return Probes(activations=0)


def spelled(field: str, value: When) -> When:
    """Check when a probe measures, and spell it in one way.

    Args:
        field: Its name.
        value: A number of steps or a text.

    Returns:
        A number, or the parts in order.

    Raises:
        InputError: If it is neither.
    """
    if not isinstance(value, str):
        return whole(field, value)
    parts = [part.strip() for part in value.split("+")]
    kinds = ["number" if part.isdigit() else part.partition(":")[0] for part in parts]
    known = all(re.fullmatch(r"\d+|log:[1-9]\d*|end", part) for part in parts)
    require(known and len(set(kinds)) == len(kinds), field, value, WHEN)
    if kinds == ["number"]:
        return int(parts[0])
    return "+".join(sorted(parts, key=lambda part: (not part.isdigit(), part == "end")))
