import copy
import gc
import math

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.curvature import Curvature, generator
from empirics.probes.hessian import CrossEntropy, SquaredError, hessian_top, hessian_trace
from empirics.probes.twin import twin
from theory.errors import InputError

LOGITS = CrossEntropy(lambda model, batch: (model(batch[0]), batch[1]))


def plain(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gpt2(**options):
    model = GPT2Config(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=4, **options).build(seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10)  # out of the region where everything is almost linear
    tokens = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(0))
    return model, (tokens[:, :-1], tokens[:, 1:])


def resnet():
    model = ResNetConfig(width=2, blocks=(1, 1), num_classes=3).build(seed=0)
    batch = random(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    for _ in range(20):
        model(batch[0])
    return model, batch


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (random(6, 4), torch.tensor([0, 1, 2, 2, 1, 0]))


def parts(model, batch, statistics="eval"):
    """Hessian and Gauss-Newton matrix in float64, row by row from first derivatives, without the probe's code."""
    model = copy.deepcopy(model).double().eval()
    for module in model.modules():
        if statistics == "train" and isinstance(module, nn.BatchNorm2d):
            module.train()
    batch = tuple(x.double() if x.is_floating_point() else x for x in batch)
    parameters = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits = model(batch[0]).flatten(0, -2)
        loss = F.cross_entropy(logits, batch[1].flatten())
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])

    def row(output):
        grads = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    hessian = torch.stack([row(g) for g in flat])
    jacobian = torch.stack([row(x) for x in logits.flatten()])
    p = logits.detach().softmax(-1)
    outer = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in p)) / len(p)
    return hessian, jacobian.T @ outer @ jacobian


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
        assert abs(estimate.value - exact) < 4 * estimate.stderr  # one in 16,000 by chance; the seed is fixed
    found = hessian_top(model, LOGITS, batch, 3, kind=kind, rel_error=1e-3)
    for value, error, truth in zip(found.values, found.errors, top[:3].tolist(), strict=True):
        assert abs(value - truth) <= error + 1e-4 * top[0].item()  # rounding of float32 products
        assert error <= 1e-3 * abs(top).max().item()


def test_standard_errors_are_honest():
    model, batch = mlp()
    exact = [matrix.trace().item() for matrix in parts(model, batch)]
    for kind, truth, loss_fn in (
        ("hessian", exact[0], LOGITS),
        ("gauss_newton", exact[1], LOGITS),
        ("hessian", exact[0], plain),
    ):
        runs = [hessian_trace(model, loss_fn, batch, kind=kind, rel_error=0.1, seed=s) for s in range(40)]
        scores = np.array([(run.value - truth) / run.stderr for run in runs])
        # chi-square with 40 degrees of freedom: rms 1 +- 0.11; sequential stopping adds up to 20 %
        assert 0.7 < math.sqrt(np.mean(scores**2)) < 1.4
        assert abs(scores.mean()) < 4 * 1.2 / math.sqrt(40)


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
        assert abs(estimate.value - exact) < 4 * estimate.stderr
        top = hessian_top(model, loss_fn, (x, y), kind=kind, rel_error=1e-4)
        assert top.values[0] == pytest.approx(torch.linalg.eigvalsh(x.T @ x)[-1].item() * 2 / 60, rel=1e-5)


def test_multiple_eigenvalues_and_a_zero_hessian():
    model = nn.Linear(5, 1, bias=False)
    sphere = hessian_top(model, lambda m, _: m.weight.square().sum(), None, 3)
    assert sphere.values == pytest.approx((2, 2, 2), rel=1e-6)
    flat = hessian_top(model, lambda m, x: m(x).sum(), torch.ones(1, 5), 2)
    assert flat.values == (0, 0)
    assert hessian_trace(model, lambda m, x: m(x).sum(), torch.ones(1, 5)).value == 0


def test_ignored_targets_do_not_count():
    model, (x, y) = mlp()
    masked = hessian_trace(model, LOGITS, (x, torch.where(torch.arange(6) < 4, y, -100)), kind="gauss_newton", seed=1)
    exact = parts(model, (x[:4], y[:4]))[1].trace().item()
    assert abs(masked.value - exact) < 4 * masked.stderr


def test_a_network_linear_in_each_parameter_has_no_blockwise_rest():
    model, batch = resnet()
    estimate = hessian_trace(model, LOGITS, batch, rel_error=0.02)
    assert "blockwise" in estimate.method
    gauss = hessian_trace(model, LOGITS, batch, kind="gauss_newton", rel_error=0.02)
    assert abs(estimate.value - gauss.value) < 4 * math.hypot(estimate.stderr, gauss.stderr)


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
    state = copy.deepcopy(model.state_dict())
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


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
    estimate = hessian_trace(model, plain, batch)
    spread = math.hypot(np.std(samples) / math.sqrt(len(samples)), estimate.stderr)
    assert abs(estimate.value - np.mean(samples)) < 4 * spread
