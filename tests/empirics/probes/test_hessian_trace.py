import math

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from empirics.probes.curvature import signs
from empirics.probes.hessian import hessian_trace
from empirics.probes.hessian_trace import LARGE, Quadratics
from tests.empirics.probes.curved import LOGITS, Centred, mlp, parts, plain, random, resnet


@pytest.mark.parametrize("case", ["small", "large", "coupled"])
def test_standard_errors_are_honest(case):
    model, batch = mlp(hidden=60 if case == "large" else 5, outputs=12)  # more outputs than are taken one by one
    if case == "coupled":
        model = nn.Sequential(*model, Centred())
    assert (sum(p.numel() for p in model.parameters()) > LARGE) == (case == "large")  # which needs fewer products
    exact = [matrix.trace().item() for matrix in parts(model, batch)]
    kinds = [("gauss_newton", exact[1], LOGITS)]
    if case != "coupled":
        kinds += [("hessian", exact[0], LOGITS), ("hessian", exact[0], plain)]
    for kind, truth, loss_fn in kinds:
        runs = [hessian_trace(model, loss_fn, batch, kind=kind, rel_error=0.1, seed=s) for s in range(40)]
        assert all(("of the whole batch" in run.method) == (case == "coupled") for run in runs)
        scores = np.array([(run.value - truth) / run.stderr for run in runs])
        # chi-square with 40 degrees of freedom: rms 1 +- 0.11; sequential stopping adds up to 20 %
        assert 0.7 < math.sqrt(np.mean(scores**2)) < 1.4
        assert abs(scores.mean()) < 4 * 1.2 / math.sqrt(40)


def test_variance_of_a_quadratic_form():
    a = random(50, 50)
    a = a + a.T
    expected = 2 * (a.square().sum() - a.diagonal().square().sum()).item()
    source = torch.Generator().manual_seed(0)

    def draw():
        z = signs(50, source, dtype=torch.float32)
        return z, a @ z

    found = [Quadratics(draw, cost=1, pilot=3).variance for _ in range(200)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(200))  # unbiased
    assert np.std(found) < 0.3 * expected  # of z^T A z itself three samples would give 1, sqrt(2/2)
    alone = [Quadratics(draw, cost=1, pilot=1).variance for _ in range(200)]
    assert np.mean(alone) > expected  # an upper bound: the diagonal is in it
    values = [Quadratics(draw, cost=1, pilot=1).mean for _ in range(400)]
    assert np.var(values) == pytest.approx(expected, rel=4 * math.sqrt(2 / 400))


def test_ignored_targets_do_not_count():
    model, (x, y) = mlp()
    masked = hessian_trace(model, LOGITS, (x, torch.where(torch.arange(6) < 4, y, -100)), kind="gauss_newton", seed=1)
    exact = parts(model, (x[:4], y[:4]))[1].trace().item()
    assert masked.value == pytest.approx(exact, rel=1e-5)  # three outputs are exact but for rounding


def test_a_network_linear_in_each_tensor_has_no_rest_and_few_outputs_are_exact():
    model, batch = resnet()
    hessian, gauss = (matrix.trace().item() for matrix in parts(model, batch))
    estimate = hessian_trace(model, LOGITS, batch)
    assert estimate.method == "exact Gauss-Newton + blockwise rest"
    assert estimate.stderr == 0
    assert estimate.value == pytest.approx(hessian, rel=1e-5)  # rounding of float32
    assert hessian_trace(model, LOGITS, batch, kind="gauss_newton").value == pytest.approx(gauss, rel=1e-5)
    assert hessian == pytest.approx(gauss, rel=1e-9)


def test_large_vocabulary_needs_no_matrix_of_it():
    vocabulary = 50_000  # squared: 10 GB a row
    model = nn.Linear(2, vocabulary, bias=False)
    batch = random(4, 2), torch.tensor([1, 2, 3, 4])
    before = psutil.Process().memory_info().rss
    estimate = hessian_trace(model, LOGITS, batch, kind="gauss_newton", rel_error=0.05)
    p = model(batch[0]).softmax(-1)
    exact = ((1 - p.square().sum(1)) * batch[0].square().sum(1)).mean().item()
    assert abs(estimate.value - exact) < 4 * estimate.stderr + 1e-5 * exact
    assert psutil.Process().memory_info().rss - before < 500e6
