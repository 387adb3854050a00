"""One measurement of a network by the name of its probe: what the training loop records and the command prints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.batchnorm import recomputed
from empirics.data import Images, Text
from empirics.models import GPT2
from empirics.probes.activations import Activations
from empirics.probes.hessian import CrossEntropy, hessian_top, hessian_trace
from empirics.probes.invariance import Defect, invariance
from empirics.probes.jacobian import jacobian_fro
from empirics.probes.joint_invariance import attention_groups, joint_invariance
from empirics.probes.noise import Measured, noise_scale
from empirics.probes.rotation import Quantities
from empirics.probes.twin import twin
from empirics.tensors import tensors
from theory.errors import InputError, require, whole

LOSS = CrossEntropy(lambda model, batch: (model(batch[0]), batch[1]))
"""The loss of our own models, in nats, with its closed form."""


@dataclass(frozen=True)
class Reading:
    """One measured number."""

    quantity: str
    """Its name, as in a run's records."""
    tensor: str
    """Tensor, block or group; "" for the whole network."""
    value: float
    """The estimate."""
    stderr: float | None = None
    """Its standard error (of an eigenvalue: a bound); None for what is exact on its examples."""


@dataclass(frozen=True)
class Subject:
    """A network and the examples on which it is measured: always the same, so that curves are smooth and comparable.

    Loss probes see held-out windows of text, spread over all of them, or training images with the labels that are
    trained on; the Jacobian sees clean test images. BatchNorm has the statistics of all training images, as in
    evaluations. Arithmetic is float32, whatever that of the training.
    """

    model: nn.Module
    """The network, on its device."""
    batch: tuple[Tensor, Tensor]
    """Inputs and targets of the loss."""
    images: Tensor | None = None
    """Inputs of the Jacobian; None for text, whose Jacobian is that of the batch."""
    rel_error: float = 0.05
    """Standard error at which iterations may stop, relative."""
    seed: int = 0
    """Of random probes."""
    options: dict[str, Any] = field(default_factory=dict)
    """max_products, top (number of eigenvalues), critical (whether noise_scale takes Hessian products)."""

    @staticmethod
    def of(
        model: nn.Module,
        data: Text | Images,
        *,
        examples: int = 32,
        rel_error: float = 0.05,
        seed: int = 0,
        **options: int,
    ) -> Subject:
        """A network with the examples of its data.

        Args:
            model: Stays as it is.
            data: The opened data.
            examples: How many; fewer if there are not so many.
            rel_error: As above.
            seed: As above.
            **options: As above.

        Returns:
            The subject.
        """
        count, device = whole("examples", examples, low=1), next(model.parameters()).device
        options = {name: whole(name, int(value), low=name != "critical") for name, value in options.items()}
        if isinstance(data, Text):
            parts = [torch.cat(part) for part in zip(*data.validation(count), strict=True)]
            chosen = torch.arange(min(count, len(parts[0]))) * len(parts[0]) // min(count, len(parts[0]))
            batch = parts[0][chosen].to(device), parts[1][chosen].to(device)
            return Subject(model, batch, None, rel_error, seed, options)
        copy = recomputed(model, data.train_images.to(device))
        batch = data.train_images[:count].to(device), data.train_labels[:count].to(device)
        return Subject(copy, batch, data.test_images[:count].to(device), rel_error, seed, options)

    def gradient_seconds(self, repeats: int = 3) -> float:
        """Measured time of one gradient of the loss on these examples, the unit of cost.

        Args:
            repeats: How many are timed, after one that is not.

        Returns:
            The median, in seconds.
        """
        other, seconds = twin(self.model), list[float]()
        parameters = [p for p in other.parameters() if p.requires_grad]
        for _ in range(repeats + 1):
            began = _now(other)
            torch.autograd.grad(LOSS(other, self.batch), parameters, allow_unused=True)
            seconds.append(_now(other) - began)
        return sorted(seconds[1:])[repeats // 2]


def jacobian(subject: Subject) -> list[Reading]:
    """Root mean squares of the outputs' Jacobian in the weights: in relative changes of each tensor, and as it is."""
    batch = subject.batch[0] if subject.images is None else subject.images
    found = jacobian_fro(subject.model, batch, rel_error=subject.rel_error, seed=subject.seed)
    relative = found.scale_invariant
    assert relative is not None
    return [
        Reading("jacobian_fro", "", relative.rms, relative.rms_stderr),
        Reading("jacobian_parameters", "", found.norm.rms, found.norm.rms_stderr),
    ]


def jacobian_inputs(subject: Subject) -> list[Reading]:
    """Root mean square of the outputs' Jacobian in the images."""
    if subject.images is None:
        raise InputError("jacobian_inputs is not allowed: tokens have no derivative.")
    norm = jacobian_fro(
        subject.model, subject.images, wrt="inputs", rel_error=subject.rel_error, seed=subject.seed
    ).norm
    return [Reading("jacobian_inputs", "", norm.rms, norm.rms_stderr)]


def trace(subject: Subject, kind: str = "hessian") -> list[Reading]:
    """Trace of the Hessian or the Gauss-Newton matrix."""
    limit = subject.options.get("max_products", 300)
    options = {"rel_error": subject.rel_error, "max_products": limit, "seed": subject.seed}
    found = hessian_trace(subject.model, LOSS, subject.batch, kind=kind, **options)
    return [Reading(f"{kind}_trace", "", found.value, found.stderr)]


def top(subject: Subject, kind: str = "hessian") -> list[Reading]:
    """Largest eigenvalues of the Hessian or the Gauss-Newton matrix."""
    count, limit = subject.options.get("top", 1), subject.options.get("max_products", 300)
    options = {"rel_error": subject.rel_error, "max_products": max(limit, count), "seed": subject.seed}
    found = hessian_top(subject.model, LOSS, subject.batch, count, kind=kind, **options)
    numbers = zip(found.values, found.errors, strict=True)
    return [Reading(f"{kind}_top", str(i + 1) if i else "", *pair) for i, pair in enumerate(numbers)]


def noise(subject: Subject) -> list[Reading]:
    """Gradient noise and signal from single examples, of the network and of each tensor on its unit sphere."""
    singles = [(x[None], y[None]) for x, y in zip(*subject.batch, strict=True)]
    bent = subject.batch if subject.options.get("critical") else None
    found = noise_scale(subject.model, LOSS, singles, hessian_batch=bent)
    reading = lambda name, tensor, part: Reading(name, tensor, part.value, part.stderr)
    whole_network: list[tuple[str, Measured | None]] = [
        ("noise_scale", found.simple),
        ("noise_scale_critical", found.critical),
        ("noise_trace", found.trace),
        ("noise_signal", found.signal),
    ]
    readings = [reading(name, "", part) for name, part in whole_network if part is not None]
    for name, part in found.tensors.items():
        readings += [reading("sphere_noise", name, part.noise), reading("sphere_signal", name, part.signal)]
    return readings


class Standstill(Optimizer):
    """Counts steps and does nothing: torch's own load the compiler, for seconds, when they first step."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Nothing; hooks are called."""


def activations(subject: Subject) -> list[Reading]:
    """Residual stream, attention logits and lost branches of one forward pass, of GPT-2's blocks."""
    optimizer = Standstill([nn.Parameter(torch.zeros(1))], {})
    probe = Activations(subject.model, optimizer, every=1, sampled=True)
    try:
        probe.sample(lambda: subject.model(subject.batch[0]))
        optimizer.step()
        ((_, values),) = probe.flush()
    finally:
        probe.close()
    return [Reading(quantity, name, x) for quantity, part in values.items() for name, x in part.items()]


def alone(subject: Subject) -> list[Reading]:
    """How far the loss is from ignoring the scale of each tensor."""
    return defects(invariance(subject.model, LOSS, subject.batch, tensors(subject.model)))


def jointly(subject: Subject) -> list[Reading]:
    """How far the loss is from ignoring the scales of Q and K, changed together (q*k) and against each other (q/k)."""
    views = tensors(subject.model)
    groups = attention_groups(views)
    if not groups:
        raise InputError("joint_invariance is not allowed: the network has no attention with Q, K and V in one.")
    return defects(joint_invariance(subject.model, LOSS, subject.batch, views, groups=groups))


def defects(found: dict[str, Defect]) -> list[Reading]:
    """The verdict (1: scale-invariant) and the three defects of each tensor or group."""
    rows = {name: (float(x.is_invariant), x.radial, x.loss_change, x.gradient_change) for name, x in found.items()}
    names = ("scale_invariant", "radial_defect", "loss_change", "gradient_change")
    return [Reading(q, name, row[i]) for name, row in rows.items() for i, q in enumerate(names)]


PROBES: dict[str, Callable[[Subject], list[Reading]]] = {
    "jacobian": jacobian,
    "jacobian_inputs": jacobian_inputs,
    "hessian_trace": trace,
    "hessian_top": top,
    "gauss_newton_trace": lambda subject: trace(subject, "gauss_newton"),
    "gauss_newton_top": lambda subject: top(subject, "gauss_newton"),
    "noise_scale": noise,
    "activations": activations,
    "invariance": alone,
    "joint_invariance": jointly,
}
"""By the name that configurations and the command line take."""


def applicable(model: nn.Module) -> tuple[str, ...]:
    """The probes that can measure a network of ours.

    Args:
        model: A `GPT2` or a `ResNet`.

    Returns:
        Their names.
    """
    without = {"jacobian_inputs"} if isinstance(model, GPT2) else {"activations", "joint_invariance"}
    return tuple(name for name in PROBES if name not in without)


@dataclass(frozen=True)
class Bundle:
    """What one probe measured, and what it cost."""

    probe: str
    """Its name."""
    readings: tuple[Reading, ...]
    """The numbers."""
    seconds: float
    """Measured time."""
    gradients: float
    """The same in gradients of the loss on the same examples."""


def measure(subject: Subject, probes: Iterable[str], *, progress: Callable[[str], None] | None = None) -> list[Bundle]:
    """Measure a network with several probes; it stays as it is.

    Args:
        subject: Network and examples.
        probes: Names from `PROBES`.
        progress: Called with the name of a probe before it begins.

    Returns:
        Readings and cost, one a probe.

    Raises:
        InputError: If a probe is unknown, or cannot measure this network; says which can.
    """
    names, allowed = list(probes), applicable(subject.model)
    require(len(names) > 0, "probes", "nothing", f"some of {', '.join(allowed)}")
    for name in names:
        require(name in allowed, "probes", name, f"some of {', '.join(allowed)}")
    unit, bundles = subject.gradient_seconds(), []
    for name in names:
        if progress is not None:
            progress(name)
        began = _now(subject.model)
        readings = PROBES[name](subject)
        seconds = _now(subject.model) - began
        bundles.append(Bundle(name, tuple(readings), seconds, seconds / unit))
    return bundles


def quantities(readings: Iterable[Reading]) -> Quantities:
    """Readings as a run records them: {quantity: {tensor: value}}, with <quantity>_stderr beside."""
    table: Quantities = {}
    for reading in readings:
        table.setdefault(reading.quantity, {})[reading.tensor] = reading.value
        if reading.stderr is not None and not math.isnan(reading.stderr):
            table.setdefault(f"{reading.quantity}_stderr", {})[reading.tensor] = reading.stderr
    return table


def _now(model: nn.Module) -> float:
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()
