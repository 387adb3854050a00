"""Identities of scale invariance on a real loss, a Rayleigh quotient, with torch's own optimizers in float64."""

import pytest
import torch

from theory import angle_from_norms, effective_lr, invariance_defect, rescaled_hyperparameters, sgd_norm_step
from theory.errors import InputError

D = 12


def symmetric(generator, count=1):
    a = torch.randn(count, D, D, dtype=torch.float64, generator=generator)
    return a + a.transpose(1, 2)


def quotient(w, a):
    return (w @ a @ w) / (w @ w)


def train(build, start, steps, seed=0):
    """Weights before the first and after every step, a fresh random quotient each; and the gradients' norms."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(start.clone())
    optimizer, path, sizes = build([w]), [start.clone()], []
    for a in symmetric(generator, steps):
        optimizer.zero_grad()
        quotient(w, a).backward()
        assert w.grad is not None
        sizes.append(w.grad.norm().item())
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path), sizes


def angles(path):
    unit = path / path.norm(dim=1, keepdim=True)
    chord, sum_ = (unit[1:] - unit[:-1]).norm(dim=1), (unit[1:] + unit[:-1]).norm(dim=1)
    return (2 * torch.atan2(chord, sum_)).numpy()


@pytest.fixture
def start():
    return torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("lr", "wd"), [(0.02, 0.5), (0.005, 0.0), (0.1, 0.3)])
def test_angle_from_norms(start, momentum, lr, wd):
    path, _ = train(lambda p: torch.optim.SGD(p, lr=lr, weight_decay=wd, momentum=momentum), start, 2_000)
    predicted = angle_from_norms(path.norm(dim=1).numpy(), lr, wd, momentum).angle
    assert predicted == pytest.approx(angles(path), rel=1e-6)  # bar of theory.md 1.3


def test_universal_rotation(start):
    """cos = 1 - lr*wd/(1+momentum) over any stretch, whatever the gradients, but for what its two ends leave over."""
    lr, wd, momentum, first = 0.05, 0.05, 0.9, 1_000
    path, _ = train(lambda p: torch.optim.SGD(p, lr=lr, weight_decay=wd, momentum=momentum), start, 5_000)
    inner, squares = (path[1:] * path[:-1]).sum(1).numpy(), path[:-1].square().sum(1).numpy()
    total = squares[first:].sum()
    ends = momentum * (inner[first - 1] - inner[-1]) / total
    assert abs(ends) < 0.1 * lr * wd
    assert 1 - inner[first:].sum() / total == pytest.approx((lr * wd + ends) / (1 + momentum), rel=1e-9)


def test_sgd_norm_step(start):
    path, sizes = train(lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3), start, 200)
    norms = path.norm(dim=1).tolist()
    for before, size, after in zip(norms, sizes, norms[1:], strict=False):
        assert sgd_norm_step(before, size, 0.1, 0.3).norm == pytest.approx(after, rel=1e-10)


def test_invariance_defect(start):
    a = symmetric(torch.Generator().manual_seed(3))[0]
    results, sizes = [], []
    for epsilon in (0.0, 1e-3):  # a little of ||w||^2 breaks the invariance
        w = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(quotient(w, a) + epsilon * w @ w, w, create_graph=True)
        (curvature,) = torch.autograd.grad(gradient @ start, w)
        results.append(invariance_defect(start.numpy(), gradient.detach().numpy(), curvature.numpy()))
        sizes.append(gradient.norm().item())
    assert results[0].radial < 1e-9  # bar of theory.md 1.1
    assert results[0].hessian < 1e-9
    # <g,w> = 2 eps ||w||^2 and Hw + g = 4 eps w
    assert results[1].radial == pytest.approx(2e-3 * start.norm().item() / sizes[1], rel=1e-6)
    assert results[1].hessian == pytest.approx(4e-3 * start.norm().item() / sizes[1], rel=1e-6)


SGD_NESTEROV = lambda p, lr, wd, _: torch.optim.SGD(p, lr=lr, weight_decay=wd, momentum=0.9, nesterov=True)
ADAM = lambda p, lr, wd, eps: torch.optim.Adam(p, lr=lr, weight_decay=wd, eps=eps)
ADAMW = lambda p, lr, wd, eps: torch.optim.AdamW(p, lr=lr, weight_decay=wd, eps=eps)


@pytest.mark.parametrize(("name", "build"), [("sgd", SGD_NESTEROV), ("adam_l2", ADAM), ("adamw", ADAMW)])
@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_rescaled_runs_take_the_same_directions(start, name, build, scale):
    lr, wd, eps = 0.02, 0.5, 0.1  # an eps large enough to matter
    new = rescaled_hyperparameters(name, lr, wd, eps, scale)
    first, _ = train(lambda p: build(p, lr, wd, eps), start, 300)
    second, _ = train(lambda p: build(p, new.lr, new.weight_decay, new.eps), scale * start, 300)
    assert (second / scale - first).norm(dim=1).max() / first.norm(dim=1).min() < 1e-9
    norm = first[-1].norm().item()
    assert effective_lr(name, new.lr, scale * norm) == pytest.approx(effective_lr(name, lr, norm), rel=1e-12)
    wrong, _ = train(lambda p: build(p, new.lr, new.weight_decay, 2 * new.eps), scale * start, 300)
    assert name == "sgd" or (wrong / scale - first).norm(dim=1).max() > 1e-3  # so the eps did matter


@pytest.mark.parametrize("name", ["lion", "signum", "muon", "normalized_momentum"])
def test_updates_of_fixed_size_scale_like_adamw(name):
    assert rescaled_hyperparameters(name, 0.1, 0.2, 0.3, 2.0) == rescaled_hyperparameters("adamw", 0.1, 0.2, 0.3, 2.0)
    assert effective_lr(name, 0.1, 4.0) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: invariance_defect([0.0], [1.0], [1.0]), ("weight, gradient", "non-zero")),
        (lambda: angle_from_norms([1.0], 0.1, 0.1), ("norms", "at least two")),
        (lambda: angle_from_norms([1.0, 0.0], 0.1, 0.1), ("norms", "positive")),
        (lambda: angle_from_norms([1.0, 1.0], 0.1, 0.1, 1.0), ("momentum = 1.0", "< 1")),
        (lambda: sgd_norm_step(-1.0, 1.0, 0.1, 0.1), ("norm = -1.0", ">= 0")),
        (lambda: rescaled_hyperparameters("lamb", 0.1, 0.1, 0.0, 2.0), ("optimizer = 'lamb'", "adamw")),  # pyright: ignore
        (lambda: rescaled_hyperparameters("sgd", 0.1, 0.1, 0.0, 0.0), ("scale = 0.0", "positive")),
        (lambda: rescaled_hyperparameters("sgd", -0.1, 0.1, 0.0, 1.0), ("lr = -0.1", ">= 0")),
        (lambda: effective_lr("sgd", 0.1, 0.0), ("norm = 0.0", "positive")),
        (lambda: effective_lr("lamb", 0.1, 1.0), ("optimizer = 'lamb'", "adamw")),  # pyright: ignore
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
