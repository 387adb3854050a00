import gc
import math

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from empirics.probes.blocks import BLOCKS, BlockMeans
from empirics.probes.signal import Signal
from empirics.tensors import tensors
from theory.errors import InputError


class Given(nn.Module):
    """A weight whose gradients the test writes."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())


def run(optimizer_of, gradients, *, start, **options):
    """Train on given gradients (functions of step and weight), return the probe's result and the history."""
    model = Given(start)
    optimizer = optimizer_of(model.parameters())
    signal = Signal(model, optimizer, **options)
    weights, grads = [model.weight.detach().clone()], []
    for gradient in gradients:
        model.weight.grad = gradient(model.weight.detach()) if callable(gradient) else gradient.clone()
        grads.append(model.weight.grad.clone())
        optimizer.step()
        weights.append(model.weight.detach().clone())
    signal.close()
    return signal.result()["weight"], torch.stack(weights).double().flatten(1), torch.stack(grads).double().flatten(1)


def carried(v, e, f):
    """Rotate v by the rotation that turns unit vector e into f, as a matrix exponential of the plane's generator."""
    plane = f - (f @ e) * e
    length = plane.norm()
    if length == 0:
        return v
    plane = plane / length
    turn = torch.outer(plane, e) - torch.outer(e, plane)
    return torch.matrix_exp(torch.atan2(length, f @ e) * turn) @ v


def test_equals_brute_force_with_all_steps_stored():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(30, 6, generator=generator).double()
    gradients = [noise[t] + (noise[t - 1] if t else 0) for t in range(30)]
    decoupled = lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.3)
    found, w, g = run(decoupled, gradients, start=torch.ones(6).double(), lags=4)
    u = ((1 - 0.05 * 0.3) * w[:-1] - w[1:]) / 0.05
    norm = w[:-1].norm(dim=1, keepdim=True)
    e = w[:-1] / norm
    v = (g - (g * e).sum(1, keepdim=True) * e) * norm
    assert found.c2 == pytest.approx((g.square().sum(1) * norm[:, 0] ** 2).mean().item(), rel=1e-9)
    assert found.radial == pytest.approx(((g * e).sum(1) / g.norm(dim=1)).mean().item(), rel=1e-9)
    assert found.update_sq == pytest.approx(u.square().sum(1).mean().item(), rel=1e-9)
    assert found.update_sq == found.update_autocov[0]
    assert found.steps == 30
    for k in range(5):
        pairs = range(k, 30)
        expected = np.mean([(u[t] @ u[t - k]).item() for t in pairs])
        assert found.update_autocov[k] == pytest.approx(expected, rel=1e-8)
        expected = np.mean([(v[t] @ carried(v[t - k], e[t - k], e[t])).item() for t in pairs])
        assert found.grad_autocov[k] == pytest.approx(expected / v.square().sum(1).mean().item(), rel=1e-8)


def test_autocorrelation_of_a_known_process():
    generator = torch.Generator().manual_seed(0)
    rho, steps, d = 0.8, 2000, 200
    state, gradients = torch.randn(d, generator=generator), []
    for _ in range(steps):
        state = rho * state + math.sqrt(1 - rho**2) * torch.randn(d, generator=generator)
        gradients.append(state)
    sgd = lambda p: torch.optim.SGD(p, lr=1e-6)
    found, _, _ = run(sgd, gradients, start=torch.randn(d, generator=generator) * 10, lags=5)
    for k in range(1, 6):  # weights hardly move, so the frame stands still
        assert found.grad_autocov[k] == pytest.approx(rho**k, abs=4 * found.grad_autocov_stderr[k] + 0.005)
    # <g_t, g_{t-5}> averages over about 2000 (1-rho^2)/(1+rho^2) * 200 independent products: 0.004
    assert 0.0005 < found.grad_autocov_stderr[5] < 0.02


def test_a_signal_that_turns_with_the_weights_is_seen_as_constant():
    w = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    w = w / w.norm()
    other = torch.zeros(50).double()
    other[0] = 1.0
    other = other - (other @ w) * w
    other = other / other.norm()
    turn = torch.outer(other, w) - torch.outer(w, other)
    sgd = lambda p: torch.optim.SGD(p, lr=1.0)

    def along_circle(x):
        return -(turn @ x) * 0.2  # always the tangent of one great circle; the raw gradient turns by 0.2 rad a step

    found, weights, grads = run(sgd, [along_circle] * 40, start=w, lags=10)
    raw = [(grads[t] @ grads[t - 10]).item() / (grads[t].norm() * grads[t - 10].norm()).item() for t in range(10, 40)]
    assert np.mean(raw) < 0  # 10 steps of 0.197 rad: cos 2
    assert found.radial == pytest.approx(0, abs=1e-9)
    growth = weights[1].norm().item() ** 2  # norms grow by this factor a step, and ||w|| ||g|| with it
    expected = np.mean([growth ** (2 * t - 10) for t in range(10, 40)]) / np.mean(
        [growth ** (2 * t) for t in range(40)]
    )
    assert found.grad_autocov[10] == pytest.approx(expected, rel=1e-6)


def test_random_projection_agrees_within_its_stated_error():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(60, 20_000, generator=generator)
    gradients = [noise[t] + noise[t - 1] for t in range(1, 60)]
    start = torch.randn(20_000, generator=generator)
    sgd = lambda p: torch.optim.SGD(p, lr=1e-3)
    exact, *_ = run(sgd, gradients, start=start, lags=3, sketch=20_000)
    rough, *_ = run(sgd, gradients, start=start, lags=3, sketch=1000)
    assert (exact.sketch_error, rough.sketch_error) == (0, pytest.approx(1000**-0.5))
    assert rough.grad_autocov[0] == pytest.approx(1, rel=1e-5)  # lag 0 needs no projection
    assert rough.c2 == pytest.approx(exact.c2, rel=1e-6)
    for k in range(1, 4):  # variance of one product of independent vectors |x|^2|y|^2/m, less when averaged
        assert rough.grad_autocov[k] == pytest.approx(exact.grad_autocov[k], abs=4 * rough.sketch_error)
        assert rough.update_autocov[k] / rough.update_sq == pytest.approx(
            exact.update_autocov[k] / exact.update_sq, abs=4 * rough.sketch_error
        )


def test_projection_is_unbiased_over_seeds_and_reproducible():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 500, generator=generator)
    start = torch.randn(500, generator=generator)
    sgd = lambda p: torch.optim.SGD(p, lr=1e-3)
    exact, *_ = run(sgd, list(noise), start=start, lags=1)
    rough = [run(sgd, list(noise), start=start, lags=1, sketch=20, seed=s)[0].grad_autocov[1] for s in range(100)]
    assert abs(np.mean(rough) - exact.grad_autocov[1]) < 4 * np.std(rough) / 10
    again = run(sgd, list(noise), start=start, lags=1, sketch=20, seed=7)[0].grad_autocov[1]
    assert again == rough[7]


def test_training_is_bitwise_the_same_and_hooks_go_away():
    finals = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        signal = Signal(model, optimizer, lags=3, sketch=8) if watched else None
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
        if signal is not None:
            assert set(signal.result()) == {view.name for view in tensors(model)}
            signal.close()
            assert not optimizer._optimizer_step_pre_hooks
            assert not optimizer._optimizer_step_post_hooks
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


def test_tensors_without_gradient_leave_gaps():
    model = Given(torch.ones(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    signal = Signal(model, optimizer, lags=2)
    for present in (True, False, True, True):
        model.weight.grad = torch.tensor([1.0, 0.0, 0.0]) if present else None
        optimizer.step()
    found = signal.result()["weight"]
    assert found.steps == 3
    assert found.update_sq == pytest.approx(1, rel=1e-5)  # w' - w of float32 numbers near 1
    assert found.update_autocov == pytest.approx((1, 1, 1), rel=1e-5)  # lag 1 once, lag 2 once, none with the gap


def test_memory_is_bounded_whatever_the_number_of_steps():
    model = nn.Linear(400, 400)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    signal = Signal(model, optimizer, lags=10, sketch=512)
    x = torch.randn(4, 400, generator=torch.Generator().manual_seed(0))

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        signal.result()

    process = psutil.Process()
    gc.disable()
    try:
        steps(30)
        before = process.memory_info().rss
        for _ in range(50):
            steps(5)
        grown = process.memory_info().rss - before
    finally:
        gc.enable()
    assert grown < 8e6  # 250 kept gradients would be 160 MB


def test_block_means_keep_the_mean_and_know_about_memory():
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(40):
        noise = rng.standard_normal(3000)
        series = np.convolve(noise, np.ones(10), mode="valid")  # mean 0, variance of the mean 100/3000
        means = BlockMeans(1)
        for value in series:
            means.add(torch.tensor([value]), torch.ones(1).double())
        assert means.mean().item() == pytest.approx(series.mean(), abs=1e-12)
        assert len(means.sums[0]) == BLOCKS
        scores.append(means.mean().item() / means.stderr().item())
    assert 0.7 < math.sqrt(np.mean(np.square(scores))) < 1.4  # 40 runs of 1 +- 0.11; white errors would give 3


def test_what_cannot_be_watched_is_refused():
    stranger = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(InputError, match="none of the model's trainable parameters"):
        Signal(nn.Linear(2, 2), stranger)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for options, message in (({"lags": -1}, "lags"), ({"sketch": 0}, "sketch"), ({"seed": -1}, "seed")):
        with pytest.raises(InputError, match=message):
            Signal(model, optimizer, **options)
    assert not optimizer._optimizer_step_pre_hooks
