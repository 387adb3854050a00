import copy
import gc
import math

import psutil
import pytest
import torch
from torch import nn

from empirics.probes.curvature import Curvature, generator
from empirics.probes.hessian import SquaredError, hessian_top, hessian_trace
from empirics.probes.twin import twin
from tests.empirics.probes.curved import LOGITS, gpt2, mlp, parts, plain, random, resnet
from theory.errors import InputError


@pytest.mark.parametrize("build", [gpt2, resnet, mlp])
@pytest.mark.parametrize("statistics", ["eval", "train"])
def test_products_equal_float64_brute_force(build, statistics):
    model, batch = build()
    curvature = Curvature(model, LOGITS, batch, statistics=statistics)
    v = curvature.random(generator(curvature, 0))
    for product, matrix in zip(
        (curvature.hessian, curvature.gauss_newton), parts(model, batch, statistics), strict=True
    ):
        expected = matrix @ v.double()
        assert (product(v) - expected).norm() <= 2e-4 * expected.norm()  # float32: 1e-7 amplified by cancellation
    rest = curvature.hessian(v) - curvature.gauss_newton(v)
    assert (curvature.residual(v) - rest).norm() <= 2e-4 * curvature.hessian(v).norm()


@pytest.mark.parametrize("build", [gpt2, resnet, mlp])
@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_traces_and_top_eigenvalues_equal_float64_brute_force(build, kind):
    model, batch = build()
    matrix = parts(model, batch)[kind == "gauss_newton"]
    exact, top = matrix.trace().item(), torch.linalg.eigvalsh(matrix).flip(0)
    for loss_fn in (LOGITS, plain) if kind == "hessian" else (LOGITS,):
        estimate = hessian_trace(model, loss_fn, batch, kind=kind, rel_error=0.05)
        assert estimate.stderr <= 0.05 * abs(estimate.value) or estimate.products >= 1000
        rounding = 1e-5 * abs(exact)  # of float32 products; some methods are exact but for it
        assert abs(estimate.value - exact) < 4 * estimate.stderr + rounding  # 1 in 16,000 by chance; fixed seed
    found = hessian_top(model, LOGITS, batch, 3, kind=kind, rel_error=1e-3)
    for value, error, truth in zip(found.values, found.errors, top[:3].tolist(), strict=True):
        assert abs(value - truth) <= error + 1e-4 * top[0].item()  # rounding of float32 products
        assert error <= 1e-3 * abs(top).max().item()


def test_quadratic_in_closed_form():
    a = random(6, 6).double()
    a = a @ a.T
    model = nn.Linear(6, 1, bias=False).double()
    loss_fn = lambda m, a: 0.5 * (m.weight @ a @ m.weight.T).squeeze()
    values = torch.linalg.eigvalsh(a).flip(0).tolist()
    top = hessian_top(model, loss_fn, a, 6, rel_error=1e-9)
    assert top.values == pytest.approx(values, rel=1e-6)
    assert top.products <= 6
    estimate = hessian_trace(model, loss_fn, a, rel_error=0.05)
    assert abs(estimate.value - a.trace().item()) < 4 * estimate.stderr
    diagonal = hessian_trace(model, loss_fn, torch.diag(a.diagonal()))  # signs are exact on a diagonal matrix
    assert diagonal.value == pytest.approx(a.trace().item(), rel=1e-12)
    assert diagonal.stderr == pytest.approx(0, abs=1e-9)


def test_linear_least_squares_in_closed_form():
    x, y = random(20, 4), random(20, 3, seed=1)
    loss_fn = SquaredError(lambda model, batch: (model(batch[0]), batch[1]))
    model = nn.Linear(4, 3, bias=False)
    exact = 2 * x.square().sum().item() / 20  # mean over 60 outputs of squared residuals: 2/60 * 3 * sum x^2
    for kind in ("hessian", "gauss_newton"):  # the same, for a linear model
        estimate = hessian_trace(model, loss_fn, (x, y), kind=kind)
        assert estimate.value == pytest.approx(exact, rel=1e-5)  # three outputs are exact but for rounding
        top = hessian_top(model, loss_fn, (x, y), kind=kind, rel_error=1e-4)
        assert top.values[0] == pytest.approx(torch.linalg.eigvalsh(x.T @ x)[-1].item() * 2 / 60, rel=1e-5)


def test_multiple_eigenvalues_and_a_zero_hessian():
    model = nn.Linear(5, 1, bias=False)
    sphere = hessian_top(model, lambda m, _: m.weight.square().sum(), None, 3)
    assert sphere.values == pytest.approx((2, 2, 2), rel=1e-6)
    flat = hessian_top(model, lambda m, x: m(x).sum(), torch.ones(1, 5), 2)
    assert flat.values == (0, 0)
    assert hessian_trace(model, lambda m, x: m(x).sum(), torch.ones(1, 5)).value == 0


@pytest.mark.parametrize("probe", [hessian_trace, hessian_top])
def test_deterministic_under_a_seed_whatever_the_global_one(probe):
    model, batch = mlp()
    torch.manual_seed(1)
    first = probe(model, LOGITS, batch, seed=3)
    torch.manual_seed(2)
    assert probe(model, LOGITS, batch, seed=3) == first
    assert probe(model, LOGITS, batch, seed=4) != first


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", ["eval", "train"])
def test_leaves_the_model_alone(training, statistics):
    model, batch = resnet()
    model = nn.Sequential(model, nn.Dropout(0.5), nn.Linear(3, 3)).train(training)
    plain(model, batch).backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    rng = torch.get_rng_state()
    noisy = lambda m, b: plain(m, b) + 0 * torch.randn(())
    with torch.no_grad():
        result = hessian_trace(model, noisy, batch, statistics=statistics, max_products=10)
        hessian_top(model, LOGITS, batch, statistics=statistics)
    assert f"BatchNorm statistics {statistics}; dropout off; math attention" == result.policy
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) and p.requires_grad for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_whatever_the_gradient_mode(mode):
    model, batch = mlp()
    expected = [hessian_top(model, LOGITS, batch, kind=kind) for kind in ("hessian", "gauss_newton")]
    with mode():
        assert [hessian_top(model, LOGITS, batch, kind=kind) for kind in ("hessian", "gauss_newton")] == expected


def test_tied_and_frozen_parameters():
    model, batch = gpt2()
    other = twin(model)
    assert other.lm_head.weight is other.transformer.wte.weight
    model.transformer.wpe.requires_grad_(False)
    expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert Curvature(model, LOGITS, batch).size == expected


def test_memory_stays_flat_over_50_calls():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 10))  # 0.4 MB: 50 leaked graphs show
    batch = random(500, 300), torch.arange(500) % 10

    def call():
        hessian_trace(model, LOGITS, batch, max_products=10)
        hessian_top(model, LOGITS, batch, max_products=3)

    process = psutil.Process()
    gc.disable()  # a reference cycle would keep its graph
    try:
        for _ in range(10):
            call()
        before = process.memory_info().rss
        for _ in range(50):
            call()
        grown = process.memory_info().rss - before
    finally:
        gc.enable()
    assert grown < 10e6  # one leaked graph a call: 100 x 1.8 MB of activations


def test_bad_input_is_refused_in_one_sentence():
    model, batch = mlp()
    x = batch[0]
    cases = [
        (lambda: hessian_trace(model, lambda m, b: m(b[0]), batch), "a scalar tensor"),
        (lambda: hessian_trace(model, lambda m, b: 1.0, batch), "a scalar tensor"),
        (lambda: hessian_trace(model, lambda m, b: m(b[0]).argmax().float(), batch), "differentiable"),
        (lambda: hessian_trace(model, lambda m, b: m(b[0]).detach().sum(), batch), "differentiable"),
        (lambda: hessian_trace(model, lambda m, b: plain(model, b), batch), "does not depend on the model"),
        (lambda: hessian_trace(model, lambda m, b: m(b[0]).sum() * math.nan, batch), "finite"),
        (lambda: hessian_trace(model, plain, (x[:0], batch[1][:0])), "at least one example"),
        (lambda: hessian_trace(model, plain, []), "at least one example"),
        (lambda: hessian_trace(model, lambda m, b: m(b[0].mul_(2)).sum(), batch), "changed in place"),
        (lambda: hessian_trace(copy.deepcopy(model).to("meta"), plain, batch), "meta"),
        (lambda: hessian_trace(copy.deepcopy(model).bfloat16(), plain, batch), "float32 or float64"),
        (lambda: hessian_top(copy.deepcopy(model).half(), plain, batch), "float32 or float64"),
        (lambda: hessian_trace(nn.ReLU(), plain, batch), "no trainable parameters"),
        (lambda: hessian_trace(model, plain, batch, kind="gauss_newton"), "CrossEntropy"),
        (lambda: hessian_top(model, plain, batch, kind="gauss_newton"), "CrossEntropy"),
        (lambda: hessian_trace(model, plain, batch, kind="fisher"), "kind"),
        (lambda: hessian_trace(model, plain, batch, rel_error=0), "rel_error"),
        (lambda: hessian_trace(model, plain, batch, statistics="frozen"), "statistics"),
        (lambda: hessian_trace(model, plain, batch, seed=-1), "seed"),
        (lambda: hessian_top(model, plain, batch, 0), "k = 0"),
        (lambda: hessian_top(model, plain, batch, 101), "max_products"),
    ]
    state, before = copy.deepcopy(model.state_dict()), x.clone()
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert torch.equal(x, before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
