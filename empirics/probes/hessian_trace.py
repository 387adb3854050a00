"""Trace of the Hessian or the Gauss-Newton matrix, to a requested standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empirics.probes.curvature import Curvature, generator
from empirics.probes.gauss_newton import GaussNewton
from empirics.probes.products import dot
from empirics.probes.twin import LossFn
from theory.errors import finite, require, whole

Array = NDArray[np.float64]

PILOT = 10
"""Degrees of freedom before a sample variance is trusted; stopping sooner would favour samples that agree by chance."""
PILOT_LARGE = 3
"""Products before the variance of a quadratic form is trusted in at least `LARGE` dimensions: it is a sum over them."""
LARGE = 1000


@dataclass(frozen=True)
class Estimate:
    """An unbiased estimate."""

    value: float
    """The estimate."""
    stderr: float
    """Its standard error."""
    products: float
    """What it cost, in Hessian-vector products (each about two gradients)."""
    method: str
    """Which estimator was used."""
    policy: str
    """What the network was while it was measured."""


class Parts:
    """Independent samples of a sum of independent parts, whose variances are added.

    Args:
        draw: One sample of every part.
        cost: Of a sample, in products.
    """

    def __init__(self, draw: Callable[[], Array], *, cost: float) -> None:
        self.draw, self.cost, self.count = draw, cost, 0
        self._means, self._squares = np.zeros(1), np.zeros(1)
        while self.freedom < PILOT:
            self.more()

    def more(self) -> None:
        """Draw one (Welford's recursion)."""
        row = self.draw()
        self.count += 1
        change = row - self._means
        self._means = self._means + change / self.count
        self._squares = self._squares + change * (row - self._means)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite's; squares of variances corrected for their own noise)."""
        if self.count < 2:
            return 0.0
        n, fourth = self.count - 1, float(np.square(self._squares).sum())
        return min(n * len(self._means), (n + 2) * float(self._squares.sum()) ** 2 / fourth) if fourth > 0 else math.inf

    @property
    def mean(self) -> float:
        """Of the sum."""
        return float(self._means.sum())

    @property
    def variance(self) -> float:
        """Of one sample of the sum."""
        return float(self._squares.sum()) / (self.count - 1)


class Quadratics:
    """Samples of z^T A z with signs z, for a symmetric A.

    With d = z*Az, elementwise, z^T A z is the sum of d, and its variance, 2 sum_{i != j} A_ij^2, is twice the sum of
    the variances of d's elements: a sum over all dimensions, known well after a few products.

    Args:
        draw: z and A z, flat.
        cost: Of a sample, in products.
        pilot: Samples to begin with.
    """

    def __init__(self, draw: Callable[[], tuple[Tensor, Tensor]], *, cost: float, pilot: int) -> None:
        self.draw, self.cost, self.count = draw, cost, 0
        self._total, self._squares, self._sum = 0.0, 0.0, torch.zeros(())
        for _ in range(pilot):
            self.more()

    def more(self) -> None:
        """Draw one."""
        z, product = self.draw()
        self.count += 1
        self._total += float(dot(z, product))
        self._squares += float(dot(product, product))
        self._sum = z.mul_(product).add_(self._sum)

    @property
    def mean(self) -> float:
        """Of z^T A z."""
        return self._total / self.count

    @property
    def variance(self) -> float:
        """Of one z^T A z; from a single one an upper bound."""
        between = float(dot(self._sum, self._sum)) / self.count if self.count > 1 else 0.0
        return 2 * max(self._squares - between, 0.0) / max(self.count - 1, 1)


@torch.inference_mode(False)
def hessian_trace(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Any,
    *,
    kind: str = "hessian",
    rel_error: float = 0.02,
    max_products: float = 1000,
    seed: int = 0,
    statistics: str = "eval",
) -> Estimate:
    """Estimate the trace of a loss's curvature over all trainable parameters.

    Any loss: z^T H z with random signs z (Hutchinson, 1990). With `CrossEntropy` or `SquaredError` H = G + R:

    - The Gauss-Newton part is the sum over examples of ||J^T S z||^2 with signs z on an example's outputs, or over
      one-hot z, exactly, for up to 10 outputs: one backward pass for all examples, with the norms layer by layer as in
      `jacobian_fro`. Without cross terms between examples its variance is far below Hutchinson's. Where examples act
      on each other, or a layer has no formula, it is one such norm for the whole batch.
    - The rest R is Hutchinson's on <residual, outputs>, on all parameters at once or, where that is cheaper, tensor by
      tensor (biases together): a network that is linear in each of its tensors (ReLU, BatchNorm 'eval') has no R there
      at all, which one product a tensor shows.

    Samples go where they lower the variance most for their cost, until the standard error is reached.

    Subtracting leading eigenvectors (Hutch++, arXiv 2010.09649) is left out: on our GPT-2 and ResNet-18 32 of them
    lowered the number of samples by less than they cost, as the spectrum is flat at this accuracy.

    Args:
        model: Any module with float32 or float64 parameters; stays as it is.
        loss_fn: Scalar loss of (model, batch).
        batch: Given to `loss_fn`.
        kind: "hessian" or "gauss_newton" (for `CrossEntropy` and `SquaredError`).
        rel_error: Standard error to reach, relative to the trace.
        max_products: Stop there, whatever the error.
        seed: Of the random signs; the same gives the same result.
        statistics: BatchNorm's: "eval" (running) or "train" (of the batch, without an update).

    Returns:
        Value, standard error, cost.

    Raises:
        InputError: As from `Curvature`, or if an option is not allowed.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> loss_fn = lambda m, x: (m(x) ** 2).mean()         # (3 w + b)^2: trace 2 (9 + 1)
        >>> estimate = hessian_trace(model, loss_fn, torch.tensor([[3.0]]), rel_error=0.1)
        >>> abs(estimate.value - 20) < 4 * estimate.stderr
        True
    """
    require(kind in ("hessian", "gauss_newton"), "kind", kind, "'hessian' or 'gauss_newton'")
    require(finite("rel_error", rel_error) > 0, "rel_error", rel_error, "a positive number")
    finite("max_products", max_products, low=1.0)
    curvature = Curvature(model, loss_fn, batch, statistics=statistics)
    source = generator(curvature, whole("seed", seed))
    pilot = PILOT if curvature.size < LARGE else PILOT_LARGE

    def hutchinson() -> tuple[Tensor, Tensor]:
        z = curvature.random(source)
        return z, curvature.hessian(z)

    aside, exact, method = 0.0, 0.0, "Hutchinson"
    streams: list[Parts | Quadratics] = []
    if kind == "hessian" and curvature.loss_fn is None:
        streams = [Quadratics(hutchinson, cost=1, pilot=pilot)]
    else:
        outer = GaussNewton(curvature, model, batch, source)
        if outer.is_exact:
            exact, method = float(outer.all().sum()), "exact Gauss-Newton"
            aside = outer.setup + outer.outputs * outer.cost
        else:
            aside = outer.setup
            method = "Gauss-Newton"
            streams.append(Parts(outer.draw, cost=outer.cost))
        method += outer.suffix
        if kind == "hessian":
            known = exact + math.fsum(s.mean for s in streams)
            rest, spent, where = _rest(curvature, source, lambda v: (rel_error * (known + v)) ** 2, pilot)
            aside, method = aside + spent, f"{method} + {where} rest"
            streams.append(rest)
    while True:
        value = exact + math.fsum(s.mean for s in streams)
        stderr = math.sqrt(math.fsum(s.variance / s.count for s in streams))
        spent = aside + math.fsum(s.cost * s.count for s in streams)
        if stderr <= rel_error * abs(value) or spent >= max_products:
            return Estimate(value, stderr, spent, method, curvature.policy)
        max(streams, key=lambda s: s.variance / (s.count * (s.count + 1) * s.cost)).more()


def _rest(
    curvature: Curvature, source: torch.Generator, wanted: Callable[[float], float], pilot: int
) -> tuple[Quadratics, float, str]:
    """The cheaper way to the trace of the rest, the products spent on the other, and its name.

    Args:
        curvature: Of the loss.
        source: The only source of randomness.
        wanted: Variance to reach if this is the trace of the rest.
        pilot: Samples to begin with.
    """

    def together() -> tuple[Tensor, Tensor]:
        z = curvature.random(source)
        return z, curvature.residual(z)

    def apart() -> tuple[Tensor, Tensor]:
        z = curvature.random(source)
        return z, curvature.residual_blocks(z)

    at_once = Quadratics(together, cost=1, pilot=pilot)
    blocks = len(curvature.blocks)
    cost = (blocks + 1) / 2  # a block's product needs the graph from its parameter on: half of it on average
    if at_once.variance <= wanted(at_once.mean) * 2 * cost:  # even trying would cost half of it
        return at_once, 0.0, "joint"
    each = Quadratics(apart, cost=cost, pilot=1)
    if each.variance * each.cost < at_once.variance * at_once.cost:
        while each.count < pilot and each.variance > 0:
            each.more()
        return each, at_once.count * at_once.cost, "blockwise"
    return at_once, each.count * each.cost, "joint"
