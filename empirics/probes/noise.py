# pyright: reportPrivateImportUsage=false
"""Gradient noise scale: how noisy a gradient is, how large the true one, and the batch size at which they balance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empirics.probes.curvature import Curvature
from empirics.probes.products import dot, wide
from empirics.probes.twin import POLICY, LossFn, check_batch, check_loss, twin, unchanged, untouched
from empirics.tensors import tensors
from theory.errors import require, whole

Array = NDArray[np.float64]
Keep = NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """A number and its standard error (delete-one-group jackknife)."""

    value: float
    stderr: float


@dataclass(frozen=True)
class TensorNoise:
    """The two parts of one tensor's gradient second moment, on the unit sphere; both unbiased, so they can be < 0."""

    signal: Measured
    """||E g||^2 ||w||^2: of the true gradient."""
    noise: Measured
    """tr Cov(g) ||w||^2 of one example: a batch of B examples has noise/B."""

    def c2(self, batch_size: int) -> float:
        """E||g||^2 ||w||^2 of a batch of that many examples, as `theory`'s laws take it.

        Args:
            batch_size: Number of examples.

        Returns:
            signal + noise / batch_size.
        """
        return self.signal.value + self.noise.value / whole("batch_size", batch_size, low=1)


@dataclass(frozen=True)
class NoiseScale:
    """Noise and signal of the whole gradient (McCandlish et al., arXiv 1812.06162)."""

    trace: Measured
    """tr Sigma, the trace of the covariance of one example's gradient."""
    signal: Measured
    """||G||^2, of the true gradient."""
    simple: Measured
    """B_simple = tr Sigma / ||G||^2, in examples (their eq. 2.9)."""
    critical: Measured | None
    """B_noise = tr(H Sigma) / (G^T H G), in examples (their eq. 2.8); None without `hessian_batch`."""
    tensors: dict[str, TensorNoise]
    """The split by tensor, named as in `empirics.tensors`."""
    microbatches: int
    """How many gradients were taken."""
    policy: str
    """What the network was while it was measured."""


@torch.inference_mode(False)
def noise_scale(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    batch_size: int = 1,
    hessian_batch: Any = None,
    groups: int = 16,
    statistics: str = "eval",
) -> NoiseScale:
    """Measure gradient noise and signal from the gradients of equal microbatches of independent examples.

    With n gradients g_i of b examples each, ||G||^2 is estimated by the mean of <g_i, g_j> over i != j and tr Sigma by
    b (mean ||g_i||^2 - ||G||^2): both unbiased, unlike the squared mean gradient. Gradients are added up in groups,
    which the jackknife leaves out in turn; memory is that of `groups` gradients, however many microbatches there are.

    Costs one gradient a microbatch and groups^2 inner products of gradients, and with `hessian_batch` about
    2 (groups + 1) gradients of that batch. Standard errors are those of the choice of examples.

    Args:
        model: Any module; stays as it is.
        loss_fn: Mean loss of (model, microbatch).
        batches: At least 3 microbatches, of `batch_size` examples each; single examples give per-sample gradients.
        batch_size: Examples a microbatch.
        hessian_batch: Batch for the Hessian of `critical`, which costs groups + 1 Hessian products.
        groups: Number of jackknife groups, at least 3.
        statistics: BatchNorm's: "eval" (running) or "train" (of each microbatch, without an update).

    Returns:
        The noise scale, with standard errors.

    Raises:
        InputError: If there are fewer than 3 microbatches, one is empty or changed in place, or the loss is not a
            differentiable scalar.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)                       # gradients x: mean 2, variance 1
        >>> batches = [torch.tensor([[x]]) for x in (1.0, 2.0, 3.0)]
        >>> scale = noise_scale(model, lambda m, x: m(x).mean(), batches)
        >>> round(scale.trace.value, 4), round(scale.signal.value, 4)
        (1.0, 3.6667)
    """
    whole("batch_size", batch_size, low=1)
    whole("groups", groups, low=3)
    other, views = twin(model, statistics=statistics), tensors(model)
    named = {name: p for name, p in other.named_parameters() if p.requires_grad}
    sums: list[dict[str, Tensor]] = []
    squares, counts = np.zeros((groups, len(views))), np.zeros(groups)
    for number, batch in enumerate(batches):
        check_batch(batch, "a microbatch")
        with untouched(model), unchanged(batch):
            loss = check_loss(loss_fn(other, batch))
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
        gradient = dict(zip(named, gradients, strict=True))
        group = number % groups
        counts[group] += 1
        squares[group] += [inner(view.of(gradient[view.parameter_name])) for view in views]
        if number < groups:
            sums.append({name: g.to(wide(g)).clone() for name, g in gradient.items()})
        else:
            torch._foreach_add_(list(sums[group].values()), gradients)
    require(counts.sum() >= 3, "batches", f"{int(counts.sum())} microbatches", "at least three")
    squares, counts = squares[: len(sums)], counts[: len(sums)]
    parts = [[view.of(each[view.parameter_name]).reshape(-1) for each in sums] for view in views]
    grams = np.stack([_gram(part, part) for part in parts])
    norms = np.array([inner(view.view()) for view in views])

    def first_order(keep: Keep) -> Array:
        n, kept_squares = counts[keep].sum(), squares[keep].sum(axis=0)
        signal = (grams[:, keep][:, :, keep].sum(axis=(1, 2)) - kept_squares) / (n * (n - 1))
        trace = batch_size * (kept_squares / n - signal)
        return np.array([trace.sum(), signal.sum(), trace.sum() / signal.sum(), *(signal * norms), *(trace * norms)])

    trace, signal, simple, *rest = _jackknife(first_order, len(sums))
    pairs = zip(rest[: len(views)], rest[len(views) :], strict=True)
    by_name = {view.name: TensorNoise(*pair) for view, pair in zip(views, pairs, strict=True)}
    critical = None
    if hessian_batch is not None:
        curvature = Curvature(model, loss_fn, hessian_batch, statistics=statistics)
        flat = [torch.cat([g.reshape(-1) for g in each.values()]) for each in sums]
        critical = _critical(curvature, flat, counts, batch_size)
    policy = POLICY.format(statistics=statistics)
    return NoiseScale(trace, signal, simple, critical, by_name, int(counts.sum()), policy)


def _critical(curvature: Curvature, sums: Sequence[Tensor], counts: Array, batch_size: int) -> Measured:
    """tr(H Sigma) / (G^T H G) from the spread of the groups' mean gradients."""
    bent = _gram(sums, [curvature.hessian(each) for each in sums])

    def second_order(keep: Keep) -> Array:
        n, block = counts[keep].sum(), bent[np.ix_(keep, keep)]
        variance = (np.sum(np.diag(block) / counts[keep]) - block.sum() / n) / (len(keep) - 1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a Hessian of zeros has no critical batch size
            return np.array([batch_size * variance / (block.sum() / n**2 - variance / n)])

    return _jackknife(second_order, len(sums))[0]


def _jackknife(statistic: Callable[[Keep], Array], groups: int) -> list[Measured]:
    """Statistics of all groups, and standard errors from leaving out each in turn."""
    everyone = np.arange(groups, dtype=np.int64)
    without = np.array([statistic(np.delete(everyone, group)) for group in everyone])
    errors = np.sqrt((groups - 1) * np.var(without, axis=0))
    return [Measured(float(v), float(e)) for v, e in zip(statistic(everyone), errors, strict=True)]


def _gram(left: Sequence[Tensor], right: Sequence[Tensor]) -> Array:
    return np.array([[float(dot(x, y)) for y in right] for x in left])


def inner(x: Tensor) -> float:
    """Squared norm of a tensor of any shape and type."""
    return float(dot(x.reshape(-1), x.reshape(-1)))
