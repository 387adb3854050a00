"""Losses with a curvature in closed form: of a network's outputs, never a matrix of outputs by outputs.

With outputs f(w) and loss l(f), the Hessian in w is J^T H J + sum_i (dl/df_i) (Hessian of f_i); its first part is the
Gauss-Newton matrix. `factor` multiplies with some S such that S S^T = H, `product` with H itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

Predict = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class CrossEntropy:
    """Mean softmax cross-entropy; usable wherever a `loss_fn(model, batch)` is.

    Per row of logits with probabilities p: H = diag(p) - p p^T and S = diag(sqrt p) - p sqrt(p)^T.

    Example:
        >>> import torch
        >>> loss_fn = CrossEntropy(lambda model, batch: (model(batch[0]), batch[1]))
        >>> round(loss_fn(nn.Identity(), (torch.zeros(2, 4), torch.tensor([0, 3]))).item(), 4)    # log 4
        1.3863
    """

    predict: Predict
    """(model, batch) -> logits of shape (..., classes) and targets of shape (...)."""
    ignore_index: int = -100
    """Target of rows that do not count."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss, in nats."""
        return self.loss(*self.predict(model, batch))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the rows that count."""
        rows = outputs.reshape(-1, outputs.shape[-1])
        return F.cross_entropy(rows, targets.reshape(-1), ignore_index=self.ignore_index)

    def factor(self, outputs: Tensor, targets: Tensor, z: Tensor) -> Tensor:
        """S z, shaped like the outputs."""
        p = outputs.softmax(-1)
        scaled = p.sqrt().mul_(z)
        scaled -= p.mul_(scaled.sum(-1, keepdim=True))
        return scaled.mul_(self._weight(targets).sqrt())

    def product(self, outputs: Tensor, targets: Tensor, u: Tensor) -> Tensor:
        """H u, shaped like the outputs."""
        p = outputs.softmax(-1)
        scaled = p * u
        scaled -= p.mul_(scaled.sum(-1, keepdim=True))
        return scaled.mul_(self._weight(targets))

    def _weight(self, targets: Tensor) -> Tensor:
        counted = targets != self.ignore_index
        return (counted.float() / counted.sum()).unsqueeze(-1)


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error over all outputs, as torch's mse_loss; H = 2/(number of outputs).

    Example:
        >>> import torch
        >>> SquaredError(lambda model, x: (model(x), 2 * x))(nn.Identity(), torch.ones(3)).item()
        1.0
    """

    predict: Predict
    """(model, batch) -> outputs and targets of the same shape."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss."""
        return self.loss(*self.predict(model, batch))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over all outputs."""
        return F.mse_loss(outputs, targets)

    def factor(self, outputs: Tensor, targets: Tensor, z: Tensor) -> Tensor:
        """S z, shaped like the outputs."""
        return z * (2 / targets.numel()) ** 0.5

    def product(self, outputs: Tensor, targets: Tensor, u: Tensor) -> Tensor:
        """H u, shaped like the outputs."""
        return u * (2 / targets.numel())
