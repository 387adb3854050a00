import copy
import gc
import math

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from empirics.models import ResNetConfig
from empirics.probes.noise import noise_scale
from empirics.tensors import tensors
from theory.errors import InputError


def linear(size: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, 1, bias=False)


def mean_output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).mean()  # the gradient of one example is the example


def test_equals_sample_moments():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + 0.5
    result = noise_scale(linear(5), mean_output, x.split(1), groups=40)
    covariance = np.cov(x.double().numpy().T)
    mean = x.double().mean(0).numpy()
    assert result.trace.value == pytest.approx(np.trace(covariance), rel=1e-5)
    assert result.signal.value == pytest.approx(mean @ mean - np.trace(covariance) / 40, rel=1e-4)
    assert result.simple.value == pytest.approx(result.trace.value / result.signal.value, rel=1e-9)
    jackknife = [np.trace(np.cov(np.delete(x.double().numpy(), i, axis=0).T)) for i in range(40)]
    assert result.trace.stderr == pytest.approx(math.sqrt(39 * np.var(jackknife)), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_recovers_a_known_noise_scale_with_honest_errors(batch_size):
    generator = torch.Generator().manual_seed(0)
    spread, mean = torch.tensor([0.5, 1.0, 2.0, 1.0]), torch.tensor([1.0, -1.0, 1.0, 2.0])
    hessian = torch.tensor([3.0, 1.0, 0.5, 0.0])
    truth = {"trace": 6.25, "signal": 7.0, "simple": 6.25 / 7}
    truth["critical"] = (hessian * spread.square()).sum().item() / (hessian * mean.square()).sum().item()
    scores = {name: [] for name in truth}

    def loss_fn(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        offset = (model.weight[0] - start).square() @ hessian / 2  # a Hessian, but no gradient at these weights
        return model(batch).mean() + offset

    model = linear(4)
    start = model.weight.detach()[0].clone()
    for _ in range(30):
        x = torch.randn(160 * batch_size, 4, generator=generator) * spread + mean
        result = noise_scale(model, loss_fn, x.split(batch_size), batch_size=batch_size, hessian_batch=x[:1])
        for name, values in scores.items():
            found = getattr(result, name)
            values.append((found.value - truth[name]) / found.stderr)
    for name, values in scores.items():
        rms = math.sqrt(np.mean(np.square(values)))
        assert 0.6 < rms < 1.5, name  # 30 runs: 1 +- 0.13, jackknife errors from 16 groups +- 0.18


def test_split_of_a_quadratic_model_with_honest_errors():
    """Loss 1/2 (w - x)^T A (w - x) of an example x ~ N(m, S): gradient A (w - x), true gradient A (w - m)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(7, 7, generator=generator)
    a, spread = root @ root.T / 7, torch.linspace(0.5, 2, 7)
    model, center = nn.ParameterDict({"one": torch.ones(3), "two": torch.linspace(-1, 1, 4)}), torch.full((7,), 0.3)
    w = torch.cat([model["one"], model["two"]]).detach()

    def loss_fn(model, x):
        off = torch.cat([model["one"], model["two"]]) - x
        return 0.5 * (off @ a * off).sum(1).mean()

    gradient, covariance = a @ (w - center), a @ torch.diag(spread.square()) @ a
    truth, batch_size = {}, 2
    for name, part in (("one", slice(0, 3)), ("two", slice(3, 7))):
        scale = w[part].square().sum()
        truth[name, "signal"] = (scale * gradient[part].square().sum()).item()
        truth[name, "noise"] = (scale * covariance[part, part].trace()).item()
    runs = []
    for _ in range(40):
        x = torch.randn(96, 7, generator=generator) * spread + center
        runs.append(noise_scale(model, loss_fn, x.split(batch_size), batch_size=batch_size))
    for (name, quantity), value in truth.items():
        found = [getattr(run.tensors[name], quantity) for run in runs]
        values, errors = np.array([f.value for f in found]), np.array([f.stderr for f in found])
        assert abs(values.mean() - value) < 4 * values.std() / math.sqrt(40), (name, quantity)  # unbiased
        # 40 runs: 1 +- 0.11; jackknife errors of 16 groups +- 0.18, and skewed
        assert 0.7 < math.sqrt(np.mean(((values - value) / errors) ** 2)) < 1.45, (name, quantity)
    for name in ("one", "two"):  # a batch of 8 has E|g|^2 |w|^2 = signal + noise/8
        expected = truth[name, "signal"] + truth[name, "noise"] / 8
        second = np.array([run.tensors[name].c2(8) for run in runs])
        assert abs(second.mean() - expected) < 4 * second.std() / math.sqrt(40)


def test_split_by_tensor_adds_up_and_gives_the_second_moment():
    torch.manual_seed(0)
    model = nn.Sequential(nn.MultiheadAttention(4, 2, bias=False), nn.Linear(4, 3))
    x, y = torch.randn(64, 2, 4), torch.randint(3, (64,))

    def loss_fn(model: nn.Module, batch: tuple) -> torch.Tensor:
        attention, head = model
        return F.cross_entropy(
            head(attention(*3 * [batch[0].transpose(0, 1)], need_weights=False)[0].mean(0)), batch[1]
        )

    batches = list(zip(x.split(2), y.split(2), strict=True))
    result = noise_scale(model, loss_fn, batches, batch_size=2)
    views = tensors(model)
    assert list(result.tensors) == [view.name for view in views]
    assert "0.in_proj_weight.q" in result.tensors
    norms = {view.name: view.view().double().square().sum().item() for view in views}
    for quantity, total in (("signal", result.signal), ("noise", result.trace)):
        parts = sum(getattr(tensor, quantity).value / norms[name] for name, tensor in result.tensors.items())
        assert parts == pytest.approx(total.value, rel=1e-6)
    squares = dict.fromkeys(result.tensors, 0.0)
    for batch in batches:
        gradient = torch.autograd.grad(loss_fn(model, batch), list(model.parameters()))
        of = dict(zip([name for name, _ in model.named_parameters()], gradient, strict=True))
        for view in views:
            squares[view.name] += view.of(of[view.parameter_name]).double().square().sum().item() / len(batches)
    for name, tensor in result.tensors.items():
        assert tensor.c2(2) == pytest.approx(squares[name] * norms[name], rel=1e-5)  # exactly the mean of ||g||^2


def test_batches_are_streamed():
    whole = noise_scale(linear(3), mean_output, (torch.full((1, 3), float(i)) for i in range(50)), groups=5)
    again = noise_scale(linear(3), mean_output, [torch.full((1, 3), float(i)) for i in range(50)], groups=7)
    assert whole.microbatches == 50
    assert whole.trace.value == pytest.approx(again.trace.value, rel=1e-6)  # groups change standard errors only


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", ["eval", "train"])
def test_leaves_the_model_alone(training, statistics):
    torch.manual_seed(0)
    model = nn.Sequential(ResNetConfig(width=2).build(seed=0), nn.Dropout(0.5)).train(training)
    x = torch.randn(12, 1, 8, 8)
    model(x).sum().backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    rng = torch.get_rng_state()
    loss_fn = lambda m, b: m(b).square().mean() + 0 * torch.randn(())
    with torch.no_grad():
        result = noise_scale(model, loss_fn, x.split(4), batch_size=4, statistics=statistics, hessian_batch=x)
    assert result.policy == f"BatchNorm statistics {statistics}; dropout off"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)


def test_memory_stays_flat_over_50_calls():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 500), nn.Tanh(), nn.Linear(500, 1))
    x = torch.randn(80, 200)
    call = lambda: noise_scale(model, lambda m, b: m(b).square().mean(), x.split(20), batch_size=20, hessian_batch=x)
    process = psutil.Process()
    gc.disable()
    try:
        for _ in range(10):
            call()
        before = process.memory_info().rss
        for _ in range(50):
            call()
        grown = process.memory_info().rss - before
    finally:
        gc.enable()
    assert grown < 10e6  # the sums of one leaked call: 4 x 0.4 MB


def test_bad_input_is_refused_in_one_sentence():
    model, x = linear(2), torch.ones(8, 2)
    cases = [
        (lambda: noise_scale(model, mean_output, x.split(4), batch_size=4), "at least three"),
        (lambda: noise_scale(model, mean_output, [x, x[:0], x]), "at least one example"),
        (lambda: noise_scale(model, lambda m, b: m(b), x.split(2)), "a scalar tensor"),
        (lambda: noise_scale(model, lambda m, b: m(b.mul_(2)).mean(), x.split(1)), "changed in place"),
        (lambda: noise_scale(model, lambda m, b: m(b).detach().mean(), x.split(1)), "differentiable"),
        (lambda: noise_scale(model, mean_output, x.split(1), batch_size=0), "batch_size"),
        (lambda: noise_scale(model, mean_output, x.split(1), groups=2), "groups"),
        (lambda: noise_scale(copy.deepcopy(model).to("meta"), mean_output, x.split(1)), "meta"),
        (lambda: noise_scale(copy.deepcopy(model).half(), mean_output, x.half().split(1), hessian_batch=x), "float32"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert torch.equal(x, torch.ones(8, 2))
