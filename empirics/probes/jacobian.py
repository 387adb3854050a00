"""Norm of the network's Jacobian: how strongly the logits react to weights or inputs, with an error bar."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empirics.probes.curvature import signs
from empirics.probes.jacobian_batch import Predict, call, take
from empirics.probes.jacobian_sources import Source
from empirics.probes.twin import POLICY, twin, untouched
from theory.errors import finite, require, whole

Array = NDArray[np.float64]

EXACT_OUTPUTS = 10
"""Outputs up to which every one of them is taken: random signs reach 2 % sooner only from a few hundred samples on."""
PILOT = 30
"""Degrees of freedom before a sample variance is trusted to stop: squares of few normal numbers are that skewed."""


@dataclass(frozen=True)
class SquaredNorm:
    """Mean over samples of a squared norm."""

    value: float
    """The mean."""
    stderr: float
    """Its standard error as the mean over all samples that could have been drawn; nan for one sample."""
    projection_stderr: float
    """Its standard error as the mean over these very samples: 0 if every output was taken."""
    samples: Array = field(repr=False)
    """Of every sample, shape (N,)."""

    @property
    def rms(self) -> float:
        """Root of the mean."""
        return math.sqrt(self.value)

    @property
    def rms_stderr(self) -> float:
        """Its standard error, by the delta method."""
        return self.stderr / (2 * self.rms) if self.value > 0 else self.stderr


@dataclass(frozen=True)
class JacobianFro:
    """Squared Frobenius norm of the Jacobian of a sample's logits; with T positions, of one position's, on average.

    The raw parameter norm and the input norm follow the norms of the weights, so they can rise where the function
    becomes simpler; the scale-invariant one is the norm with respect to relative changes of each tensor.
    """

    norm: SquaredNorm
    """sum_l ||J_l||^2 over trainable tensors l, or ||d logits / d inputs||^2."""
    scale_invariant: SquaredNorm | None
    """sum_l ||w_l||^2 ||J_l||^2; None for inputs."""
    tensors: dict[str, float]
    """Mean ||J_l||^2 by tensor, named as in `empirics.tensors`."""
    method: str
    """How it was computed."""
    reason: str
    """Why not layer by layer; empty if it was."""
    cost: float
    """Multiplications of matrices, in gradients of the batch (three forward passes each).

    Where matrices are small, the time is up to three times as much.
    """
    policy: str
    """What the network was while it was measured."""

    @property
    def value(self) -> float:
        """Mean of the raw squared norm."""
        return self.norm.value

    @property
    def stderr(self) -> float:
        """Its standard error."""
        return self.norm.stderr


@torch.inference_mode(False)
def jacobian_fro(
    model: nn.Module,
    batch: Any,
    *,
    wrt: str = "parameters",
    method: str = "auto",
    rel_error: float = 0.02,
    max_probes: int = 100,
    batch_size: int = 50,
    predict: Predict = call,
    seed: int = 0,
    statistics: str = "eval",
) -> JacobianFro:
    """Measure ||J||_F^2 sample by sample.

    It is the sum of ||J^T v||^2 over one-hot v (exact), or its mean over v of random signs (one v for each sample:
    signs for a whole batch at once would be far noisier). Parameters: J^T v is never formed. One backward pass through
    the layers' outputs gives, with their inputs, the norm for every tensor (`empirics.probes.jacobian_layers`).
    Matrices and tables used several times, or transposed, are exact. Operations without a formula, and samples that
    act on each other, are found by themselves and cost one backward pass for every sample and v; `reason` says so.
    BatchNorm's batch statistics (statistics="train") are such a case: J is then that of a sample's logits at fixed
    other samples.

    Args:
        model: Any module that maps N samples to logits (N, C), or (N, T, C) with T positions; stays as it is.
        batch: A tensor, a tuple of arguments or a mapping of keyword arguments, with a sample a row.
        wrt: "parameters" (trainable ones) or "inputs" (all floating-point tensors of the batch).
        method: "exact", "random", or "auto": exact for up to 10 outputs or where random signs need as many.
        rel_error: Stop there: `projection_stderr` relative to the value, raw and scale-invariant.
        max_probes: Most random v a sample, whatever the error.
        batch_size: Samples at a time; of no effect where they act on each other.
        predict: Logits of (model, batch), where they are not what the model returns or its `logits`.
        seed: Of the random signs; the same gives the same result.
        statistics: BatchNorm's: "eval" (running) or "train" (of the batch, without an update).

    Returns:
        Squared norms with standard errors.

    Raises:
        InputError: If the batch is empty or changed by the model, the output not differentiable or of another shape, or
            an option is not allowed.

    Source: norms from two factors as in Goodfellow, arXiv 1510.01799, and Rochette et al., arXiv 1912.06015.

    Example:
        >>> linear = nn.Linear(2, 3, bias=False)  # J_w = x for each output, J_x = w
        >>> round(jacobian_fro(linear, torch.ones(4, 2)).value, 3)
        6.0
    """
    require(wrt in ("parameters", "inputs"), "wrt", wrt, "'parameters' or 'inputs'")
    require(method in ("auto", "exact", "random"), "method", method, "'auto', 'exact' or 'random'")
    require(finite("rel_error", rel_error) > 0, "rel_error", rel_error, "a positive number")
    whole("max_probes", max_probes, low=1)
    whole("batch_size", batch_size, low=1)
    other = twin(model, statistics=statistics, trainable=wrt == "parameters")
    with untouched(model):
        source = Source(other, predict, batch, wrt=wrt, statistics=statistics)
        sums = Sums(source, batch, batch_size)
        exact = method == "exact" or (method == "auto" and source.outputs <= EXACT_OUTPUTS)
        if not exact:
            exact = not sums.randomly(rel_error, max_probes, seed, give_up=method == "auto")
        if exact:
            sums.exactly()
        return sums.result(exact, POLICY.format(statistics=statistics))


class Sums:
    """Squared norms so far, over cotangents.

    Args:
        source: Of the norms.
        batch: All samples.
        batch_size: Samples at a time.
    """

    def __init__(self, source: Source, batch: Any, batch_size: int) -> None:
        self.source, self.batch, self.cost = source, batch, source.trial_cost
        self.pieces = torch.arange(source.n).split(source.n if source.coupled else batch_size)
        weights = [view.view().double().square().sum().item() for view in source.views] or [1.0]
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.positions = source.positions
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        self.columns = torch.zeros(self.source.n, self.weights.numel(), dtype=torch.float64)
        self.totals = torch.zeros(self.source.n, 2, dtype=torch.float64)
        self.squares = torch.zeros_like(self.totals)

    def exactly(self) -> None:
        """Take every output; what was summed before is forgotten."""
        self._clear()

        def one_hot(outputs: Tensor, number: int) -> Tensor:
            v = torch.zeros_like(outputs).flatten(1)
            v[:, number] = 1
            return v.view_as(outputs)

        self._add(self.source.outputs, one_hot)

    def randomly(self, rel_error: float, most: int, seed: int, *, give_up: bool) -> bool:
        """Take random signs until the error is reached.

        Args:
            rel_error: Standard error, relative to the mean.
            most: Signs a sample.
            seed: Of the signs.
            give_up: Stop as soon as taking every output would be cheaper.

        Returns:
            Whether it did not give up.
        """
        device = self.source.device
        generator = torch.Generator(device).manual_seed(whole("seed", seed))
        n, more = self.source.n, 1
        while True:
            self._add(more, lambda outputs, _: signs(outputs.shape, generator, dtype=outputs.dtype))
            error = self._relative_error()
            if error <= rel_error or self.count >= most:
                return True
            freedom = n * (self.count - 1)
            forecast = self.count * (error / rel_error) ** 2 if freedom >= PILOT else 1 + math.ceil(PILOT / n)
            more = min(max(math.ceil(min(forecast, 4.0 * self.count)) - self.count, 1), most - self.count)
            if give_up and freedom >= PILOT and min(forecast, most) - self.count >= self.source.outputs:
                return False

    def _add(self, cotangents: int, draw: Any) -> None:
        device = self.source.device
        weights = self.weights.to(device)
        for rows in self.pieces:
            opened = self.source.open(take(self.batch, rows), cotangents)
            self.cost += (opened.once + cotangents * opened.each) * len(rows) / self.source.n
            for number in range(cotangents):
                found = opened.squares(draw(opened.outputs.detach(), number)) / self.positions
                totals = torch.stack([found.sum(1), (found * weights).sum(1)], 1).cpu()
                self.columns[rows] += found.cpu()
                self.totals[rows] += totals
                self.squares[rows] += totals.square()
        self.count += cotangents

    def _projection_errors(self) -> Array:
        """Standard errors of both means over these samples; from one v each an upper bound, their whole spread."""
        n, k = self.source.n, self.count
        means = self.totals / k
        if k > 1:
            variances = (self.squares - k * means.square()).clamp(min=0) / (k - 1) / k
            return (variances.sum(0).sqrt() / n).numpy()
        return (means.std(0) / n**0.5).numpy() if n > 1 else np.full(2, np.nan)

    def _relative_error(self) -> float:
        if self.source.n <= PILOT if self.count == 1 else self.source.n * (self.count - 1) < PILOT:
            return math.inf
        means = (self.totals / self.count).mean(0).numpy()
        errors = self._projection_errors()
        relative = np.divide(errors, means, out=np.zeros(2), where=means > 0)
        return float(relative.max() if self.source.views else relative[0])

    def result(self, exact: bool, policy: str) -> JacobianFro:
        """What was found.

        Args:
            exact: Whether every output was taken.
            policy: What the network was.
        """
        source = self.source
        scale = 1 if exact else self.count
        samples = (self.totals / scale).numpy()
        errors = np.zeros(2) if exact else self._projection_errors()
        spread = samples.std(0, ddof=1) / source.n**0.5 if source.n > 1 else np.full(2, np.nan)
        raw, relative = (
            SquaredNorm(float(samples[:, i].mean()), float(spread[i]), float(errors[i]), samples[:, i]) for i in (0, 1)
        )
        means = (self.columns / scale).mean(0).tolist()
        by_name = dict(zip([view.name for view in source.views], means, strict=True)) if source.views else {}
        how = f"exact, {source.outputs} outputs" if exact else f"{self.count} random signs a sample"
        return JacobianFro(
            norm=raw,
            scale_invariant=relative if source.views else None,
            tensors=by_name,
            method=f"{source.method}; {how}",
            reason=source.reason,
            cost=self.cost,
            policy=policy,
        )
