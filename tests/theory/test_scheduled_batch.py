"""A batch size that changes, under SGD: the prediction against torch.optim.SGD on noise of that size."""

import numpy as np
import pytest
import torch

from theory.optimizers import SGD
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Piecewise

D, TENSORS, STEPS, C2 = 1_024, 8, 1_500, 4.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_the_batch(momentum):
    """Noise grows fourfold when the batch falls to a quarter. Bar: norm 1 %, angle 2 % over 50 steps (3.1), and 0.5 %
    for sampling 8 tensors of 1,024 coordinates."""
    lr, decay = 0.1 * (1 - momentum), 0.02
    schedule, batch = Cosine(final=0.3), Piecewise(knots=((0, 1.0), (600, 0.25), (1_100, 0.5)))
    optimizer = SGD(lr, momentum=momentum, weight_decay=decay)
    group = Group("w", (D,), scale_invariant="tensor", norm0=1.0)
    recipe = Recipe(optimizer, schedule, STEPS, (group,), batch_schedule=batch)
    predicted = predict(recipe, Probe(0, {"w": TensorProbe(c2=C2)})).values(range(STEPS))

    generator = torch.Generator().manual_seed(0)
    w = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(TENSORS, D, generator=generator).double(), dim=1))
    torch_sgd = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=decay)
    rates, noise = recipe.lr(np.arange(STEPS)), recipe.noise()
    norms, angles = np.empty(STEPS), np.empty(STEPS)
    for step in range(STEPS):
        before = w.detach().clone()
        size = before.norm(dim=1, keepdim=True)
        g = torch.randn(TENSORS, D, generator=generator).double()
        unit = before / size
        g -= (g * unit).sum(1, keepdim=True) * unit
        w.grad = g * (C2 * noise[step] / (D - 1)) ** 0.5 / size
        torch_sgd.param_groups[0]["lr"] = rates[step]
        torch_sgd.step()
        after = w.detach()
        norms[step] = after.square().sum(1).mean().sqrt()
        chord = (after / after.norm(dim=1, keepdim=True) - unit).square().sum(1)
        angles[step] = (4 * torch.arcsin(chord.sqrt() / 2) ** 2).mean().sqrt()
    np.testing.assert_allclose(predicted["norm"][:, 0], norms, rtol=0.015)
    windows = [np.sqrt(np.mean(np.square(a).reshape(-1, 50), axis=1)) for a in (predicted["angle"][:, 0], angles)]
    np.testing.assert_allclose(*windows, rtol=0.025)
    still = Recipe(optimizer, schedule, STEPS, (group,))
    ignored = predict(still, Probe(0, {"w": TensorProbe(c2=C2)})).values(range(STEPS))["norm"][:, 0]
    assert np.max(np.abs(ignored / norms - 1)) > 0.2  # the schedule matters
