"""The Gauss-Newton trace from the outputs' side: sums of ||J^T S z||^2, example by example where that is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empirics.probes.curvature import Curvature, signs
from empirics.probes.jacobian_batch import count, take
from empirics.probes.jacobian_sources import LAYERS, Opened, Source
from empirics.probes.products import dot
from empirics.probes.twin import untouched
from theory.errors import InputError

Array = NDArray[np.float64]

EXACT_OUTPUTS = 10
"""Outputs an example up to which every one of them is taken, as in `jacobian_fro`."""
GRADIENTS = 2
"""Gradients that one Hessian product costs."""


class GaussNewton:
    """Samples of the trace of J^T H J = (J^T S)(J^T S)^T, H the Hessian of the loss in the outputs.

    Args:
        curvature: Of a loss with a curvature in closed form.
        model: The model that it was made of.
        batch: Its batch.
        source: The only source of randomness.

    Raises:
        InputError: If the loss is not one of those.
    """

    def __init__(self, curvature: Curvature, model: nn.Module, batch: Any, source: torch.Generator) -> None:
        self.curvature, self.source, self.loss_fn = curvature, source, curvature.known_loss()
        self.model = model
        self.opened = self._open(batch)
        self.setup, self.cost = 0.0, 2 / 3 / GRADIENTS  # a backward pass is two thirds of a gradient
        if self.opened is not None:
            self.setup, self.cost = self.opened.once / GRADIENTS, self.opened.each / GRADIENTS
        self.suffix = " of the whole batch" if self.opened is None else ""
        self.outputs = curvature.outputs[0].numel() if curvature.outputs.dim() else 1
        self.is_exact = self.opened is not None and self.outputs <= EXACT_OUTPUTS

    def draw(self) -> Array:
        """||J^T S z||^2 with random signs z, of each example, or one number for all of them."""
        z = signs(self.curvature.outputs.shape, self.source, dtype=self.curvature.outputs.dtype)
        return self._squares(z)

    def all(self) -> Array:
        """The trace itself, of each example: the sum over one-hot z."""
        total = np.zeros(len(self.curvature.outputs))
        for number in range(self.outputs):
            z = torch.zeros_like(self.curvature.outputs).flatten(1)
            z[:, number] = 1
            total += self._squares(z.view_as(self.curvature.outputs))
        return total

    def _squares(self, z: Tensor) -> Array:
        outer = self.loss_fn.factor(self.curvature.outputs.detach(), self.curvature.targets, z)
        if self.opened is None:
            return np.array([sum(float(dot(g.reshape(-1), g.reshape(-1))) for g in self.curvature.pull_back(outer))])
        with untouched(self.model):
            return self.opened.squares(outer).sum(1).cpu().numpy()

    def _open(self, batch: Any) -> Opened | None:
        """The layers' norms for the whole batch; None if there are none."""
        predict = lambda model, batch: self.loss_fn.predict(model, batch)[0]
        statistics = self.curvature.statistics
        try:
            with untouched(self.model):
                source = Source(self.curvature.model, predict, batch, wrt="parameters", statistics=statistics)
                if source.method != LAYERS:
                    return None
                opened = source.open(take(batch, torch.arange(count(batch))), EXACT_OUTPUTS)
        except InputError:  # outputs that are not one row an example
            return None
        same = source.method == LAYERS and opened.outputs.shape == self.curvature.outputs.shape
        return opened if same else None
