"""Finite eps: against autograd through a real normalisation, and torch SGD with gradients that stop growing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import finite_eps, finite_eps_equilibrium, radial_gradient, sgd_equilibrium
from theory.errors import InputError

POSITIVE = st.floats(1e-6, 1e6)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
def test_batch_norm_by_autograd(scale):
    """Exact (bar 1e-9): torch's own batch_norm, its eps of the size of the variance at scale 0.1."""
    torch.manual_seed(0)
    z, w = torch.randn(256, 32).double(), torch.randn(32).double() * scale
    w.requires_grad_(True)
    gamma = torch.tensor([1.7], dtype=torch.float64).requires_grad_(True)
    x, eps = z @ w, float((z @ w.detach()).var(unbiased=False) / scale**2 * 0.01)
    y = torch.nn.functional.batch_norm(x[:, None], None, None, gamma, None, training=True, eps=eps)[:, 0]
    loss = (y**3 + torch.randn(256).double() * y).mean()
    g, g_gamma = torch.autograd.grad(loss, (w, gamma))
    law = finite_eps(eps, float(x.detach().var(unbiased=False)) / scale**2, scale)
    assert float(w.detach() @ g) == pytest.approx(law.defect * 1.7 * float(g_gamma), rel=1e-9)
    assert float(y.detach().std(unbiased=False)) == pytest.approx(1.7 * law.gain, rel=1e-9)


def test_tangential_gradient_by_autograd():
    """For an upstream gradient orthogonal to y the gain is exact (1e-9); for another it is to O(eps/variance)."""
    torch.manual_seed(0)
    z, w = torch.randn(256, 32).double(), torch.randn(32).double()
    x = (z @ w) - (z @ w).mean()
    upstream = torch.randn(256).double()
    upstream = upstream - upstream.mean()
    orthogonal = upstream - (upstream @ x) / (x @ x) * x

    def tangential(eps, direction):
        v = w.clone().requires_grad_(True)
        y = torch.nn.functional.batch_norm((z @ v)[:, None], None, None, training=True, eps=eps)[:, 0]
        (g,) = torch.autograd.grad(direction @ y, v)
        return g - (g @ w) / (w @ w) * w

    variance = float(x.var(unbiased=False))
    for ratio in (0.01, 1.0):
        law = finite_eps(ratio * variance, variance)
        sizes = [float(tangential(eps, orthogonal).norm()) for eps in (ratio * variance, 1e-300)]
        assert sizes[0] / sizes[1] == pytest.approx(law.gain, rel=1e-9)
    along = [float(tangential(eps, upstream + x).norm()) for eps in (1e-3 * variance, 1e-300)]
    assert along[0] / along[1] == pytest.approx(finite_eps(1e-3, 1.0).gain, rel=2e-3)


def settle(lr, wd, c2, floor, pull, momentum, norm0, steps, d=1_024, rows=4):
    torch.manual_seed(1)
    w = torch.randn(rows, d).double()
    w = torch.nn.Parameter(w / w.norm(dim=1, keepdim=True) * norm0)
    optimizer = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=wd)
    squares, chords = [], []
    for _ in range(steps):
        old = w.detach().clone()
        size = old.norm(dim=1, keepdim=True)
        noise = torch.randn(rows, d).double()
        noise = noise - (noise * old).sum(1, keepdim=True) / size**2 * old
        soft = size**2 + floor**2
        w.grad = noise / noise.norm(dim=1, keepdim=True) * (c2 / soft) ** 0.5 + pull * floor**2 / soft * old / size**2
        optimizer.step()
        cos = torch.nn.functional.cosine_similarity(old, w.detach(), dim=1)
        squares.append(w.detach().square().sum(1).mean().item())
        chords.append((2 - 2 * cos).mean().item())
    half = slice(steps // 2, None)
    return np.sqrt(np.mean(squares[half])), np.sqrt(np.mean(chords[half]))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("floor", "pull"), [(0.5, 0.0), (2.0, 0.0), (2.0, 0.005), (2.0, -0.02)])
def test_equilibrium_of_torch_sgd(momentum, floor, pull):
    """Bar 1 % (pre-stated), where the law of exact invariance is 3 to 70 % off."""
    lr, wd = 0.1 * (1 - momentum), 0.05
    norm, angle = settle(lr, wd, 1.0, floor, pull, momentum, 1.0, 4_000)
    law = finite_eps_equilibrium(lr, wd, 1.0, floor, pull, momentum)
    assert law.norm == pytest.approx(norm, rel=0.01)
    assert law.angle == pytest.approx(angle, rel=0.01)
    assert abs(sgd_equilibrium(lr, wd, momentum, c2=1.0).norm / norm - 1) > 0.03


@given(variance=POSITIVE, eps=st.floats(0, 1e6), scale=st.floats(1e-3, 1e3))
def test_limits_of_eps(variance, eps, scale):
    law, same = finite_eps(eps, variance, scale), finite_eps(eps, variance * scale**2)
    assert law.gain**2 + law.defect == pytest.approx(1, rel=1e-12)
    assert law.gain == pytest.approx(same.gain, rel=1e-12)
    assert finite_eps(0.0, variance, scale) == finite_eps(0.0, 1.0)
    assert finite_eps(eps, variance, 2 * scale).gain >= law.gain
    if law.floor_scale > 1e-100:
        assert finite_eps(eps, variance, law.floor_scale).defect == pytest.approx(0.5, rel=1e-9)


@given(lr=st.floats(1e-3, 1), share=st.floats(1e-6, 1e-3), c2=st.floats(1e-3, 1e3), momentum=st.floats(0, 0.9))
def test_no_floor_is_the_plain_law(lr, share, c2, momentum):
    """Leading order: SGD's equilibrium has lr*wd/(2(1+momentum)) more in the square of the square."""
    law, plain = (
        finite_eps_equilibrium(lr, share / lr, c2, 0.0, 1.0, momentum),
        sgd_equilibrium(lr, share / lr, momentum, c2=c2),
    )
    assert law.norm == pytest.approx(plain.norm, rel=share)
    assert law.angle == pytest.approx(plain.angle, rel=1e-9)
    assert law.relaxation_steps == pytest.approx((1 - momentum) / (4 * share), rel=1e-9)


def test_a_small_floor_is_a_small_radial_gradient():
    """<w,g> = pull floor^2/R and ||w|| ||g|| = c: to first order the law of a constant radial = <w,g>/c."""
    lr, wd, floor, pull = 0.1, 1e-3, 0.2, 0.02
    full, still = (finite_eps_equilibrium(lr, wd, 1.0, floor, a).norm for a in (pull, 0.0))
    radial = pull * floor**2 / still**2  # <w,g>/(||w|| ||g||) with ||w|| ||g|| = 1
    leaning = radial_gradient(radial, lr, wd)
    assert full / still == pytest.approx(float(leaning.norm_ratio) ** 0.5, rel=1e-3)
    assert full < still


def test_a_strong_pull_lets_the_weights_collapse():
    with pytest.raises(InputError, match="pull"):
        finite_eps_equilibrium(0.1, 0.01, 1.0, 1.0, 0.06)
    with pytest.raises(InputError, match="variance"):
        finite_eps(1e-5, 0.0)
