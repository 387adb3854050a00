"""Largest eigenvalues of the Hessian or the Gauss-Newton matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from empirics.probes.curvature import Curvature, generator
from empirics.probes.products import dot
from empirics.probes.twin import LossFn
from theory.errors import finite, require, whole


@dataclass(frozen=True)
class TopEigenvalues:
    """The largest eigenvalues, in descending order."""

    values: tuple[float, ...]
    """Eigenvalues."""
    errors: tuple[float, ...]
    """How far from each there is surely an eigenvalue: norms of the residuals."""
    products: int
    """Products that were needed."""
    policy: str
    """What the network was while it was measured."""


@torch.inference_mode(False)
def hessian_top(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Any,
    k: int = 1,
    *,
    kind: str = "hessian",
    rel_error: float = 0.01,
    max_products: int = 100,
    seed: int = 0,
    statistics: str = "eval",
) -> TopEigenvalues:
    """Find the k largest eigenvalues (not magnitudes) by Lanczos with full reorthogonalisation.

    It starts from the gradient, which lies mostly in the space of the leading eigenvectors (Gur-Ari et al., arXiv
    1812.04754), and a tenth of random noise; on our GPT-2 that saved two products of eight.

    A Ritz value with residual r is within r of an eigenvalue (Parlett, The Symmetric Eigenvalue Problem, ch. 4), and
    usually much nearer. The sharper r^2/gap is not used: while neighbours have not split, the gap is unknown, and
    values 1.5 % off were taken for right. As for every such method, the start can miss an eigenvalue that is
    multiple or nearly orthogonal to it.

    Args:
        model: Any module with float32 or float64 parameters; stays as it is.
        loss_fn: Scalar loss of (model, batch).
        batch: Given to `loss_fn`.
        k: How many.
        kind: "hessian" or "gauss_newton" (for `CrossEntropy` and `SquaredError`).
        rel_error: Error to reach, relative to the largest eigenvalue in magnitude.
        max_products: Stop there, whatever the errors; each product keeps one vector of the size of the model.
        seed: Of the start; the same gives the same result.
        statistics: BatchNorm's: "eval" (running) or "train" (of the batch, without an update).

    Returns:
        Values and error bounds.

    Raises:
        InputError: As from `Curvature`, or if an option is not allowed.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> top = hessian_top(model, lambda m, x: m(x).square().sum(), x, k=2)    # 2 x^T x
        >>> [round(value, 4) for value in top.values]
        [18.0, 2.0]
    """
    require(kind in ("hessian", "gauss_newton"), "kind", kind, "'hessian' or 'gauss_newton'")
    require(finite("rel_error", rel_error) > 0, "rel_error", rel_error, "a positive number")
    whole("max_products", max_products, low=whole("k", k, low=1))
    curvature = Curvature(model, loss_fn, batch, statistics=statistics)
    require(k <= curvature.size, "k", k, f"at most the number of trainable parameters, {curvature.size}")
    if kind == "gauss_newton":
        curvature.known_loss()
    multiply = curvature.hessian if kind == "hessian" else curvature.gauss_newton
    source = generator(curvature, whole("seed", seed))
    dtype = curvature.parameters[0].dtype

    def fresh(basis: list[Tensor], near: Tensor | None = None) -> Tensor:
        v = torch.randn(curvature.size, generator=source, device=source.device, dtype=dtype)
        if near is not None and float(near.norm()) > 0:
            v = near / near.norm() + 0.1 * v / v.norm()
        v = orthogonal(v, basis)
        return v / v.norm()

    basis, diagonal, off = [fresh([], near=curvature.slope(with_graph=kind == "hessian"))], [], []
    while True:
        w = multiply(basis[-1])
        diagonal.append(float(dot(basis[-1], w)))
        w = orthogonal(w, basis)
        beta = float(dot(w, w)) ** 0.5
        ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        scale, n = float(np.abs(ritz).max()), len(diagonal)
        exhausted = beta <= 10 * torch.finfo(dtype).eps * scale  # the Krylov space is invariant
        errors = (0.0 if exhausted else beta) * np.abs(vectors[-1])
        done = n >= k and bool(np.all(errors[-k:] <= rel_error * scale)) and (n > k or exhausted)
        if done or n >= min(max_products, curvature.size):
            order = slice(None, -k - 1, -1)
            return TopEigenvalues(tuple(ritz[order].tolist()), tuple(errors[order].tolist()), n, curvature.policy)
        off.append(0.0 if exhausted else beta)
        basis.append(fresh(basis) if exhausted else w / beta)


def orthogonal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    """Remove the basis from a vector; twice is enough (Kahan and Parlett)."""
    for _ in range(2 if basis else 0):
        for q in basis:
            vector = vector - float(dot(q, vector)) * q
    return vector
