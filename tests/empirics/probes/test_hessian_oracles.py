"""Other libraries as independent oracles: pip install .[oracles]."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from empirics.probes.curvature import Curvature, generator
from empirics.probes.hessian import hessian_top, hessian_trace
from tests.empirics.probes.curved import LOGITS, mlp, plain


def test_agrees_with_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model, batch = mlp()
    parameters = list(model.parameters())
    curvature = Curvature(model, LOGITS, batch)
    v = curvature.random(generator(curvature, 0))
    theirs = (
        (curvlinops.HessianLinearOperator, curvature.hessian),
        (curvlinops.GGNLinearOperator, curvature.gauss_newton),
    )
    for operator, product in theirs:
        expected = operator(model, nn.CrossEntropyLoss(), parameters, [batch]) @ v
        assert torch.allclose(product(v), expected.detach(), rtol=1e-4, atol=1e-5)


def test_agrees_with_pyhessian():
    pyhessian = pytest.importorskip("pyhessian")
    model, batch = mlp()
    torch.manual_seed(0)
    theirs = pyhessian.hessian(copy.deepcopy(model), nn.CrossEntropyLoss(), data=batch, cuda=False)
    (expected,), _ = theirs.eigenvalues(maxIter=1000, tol=1e-7)
    assert hessian_top(model, plain, batch, rel_error=1e-4).values[0] == pytest.approx(expected, rel=1e-3)
    samples = theirs.trace(maxIter=400, tol=0)
    estimate = hessian_trace(model, LOGITS, batch)
    spread = math.hypot(np.std(samples) / math.sqrt(len(samples)), estimate.stderr)
    assert abs(estimate.value - np.mean(samples)) < 4 * spread


def test_agrees_with_backpack():
    backpack = pytest.importorskip("backpack")
    extensions = pytest.importorskip("backpack.extensions")
    model, batch = mlp()
    theirs, loss = backpack.extend(copy.deepcopy(model)), backpack.extend(nn.CrossEntropyLoss())
    with backpack.backpack(extensions.DiagHessian(), extensions.DiagGGNExact()):
        loss(theirs(batch[0]), batch[1]).backward()
    for kind, name in (("hessian", "diag_h"), ("gauss_newton", "diag_ggn_exact")):
        expected = sum(getattr(p, name).sum().item() for p in theirs.parameters())
        found = hessian_trace(model, LOGITS, batch, kind=kind)
        assert abs(found.value - expected) < 4 * found.stderr + 1e-5 * expected
