"""The generic decoupled law against discrete Lyapunov equations, geometry, and a literal simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov

from theory import angle_from_relative_update, decoupled_equilibrium, normalized_momentum_equilibrium
from theory.errors import InputError


def lyapunov(a, h, weights, decay=0.0):
    """R and angle of w' = a w - h u, with u_t a moving average of white noise filtered by x' = decay x + noise."""
    memory = len(weights)
    # state: w, then the last `memory` values of x
    transition, drive = np.zeros((memory + 1, memory + 1)), np.zeros((memory + 1, 1))
    transition[1, 1], drive[1] = decay, 1.0  # x_t
    transition[2:, 1:-1] = np.eye(memory - 1)
    update = weights @ transition[1:]  # u_t from the state before, plus weights[0] noise
    transition[0], drive[0] = -h * update, -h * weights[0]
    transition[0, 0] += a
    covariance = solve_discrete_lyapunov(transition, drive @ drive.T)
    square = covariance[0, 0]
    return square, np.arccos((transition @ covariance)[0, 0] / square)


@given(
    rho=st.floats(1e-3, 0.4),
    lr=st.floats(1e-3, 1),
    ratio=st.floats(0.1, 3),
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=6).filter(lambda q: abs(q[0]) > 0.1),
)
def test_moving_average_updates(rho, lr, ratio, weights):
    q = np.array(weights)
    c = [q[: len(q) - k] @ q[k:] for k in range(len(q))]
    square, angle = lyapunov(1 - rho, ratio * lr, q)
    law = decoupled_equilibrium(lr, rho / lr, c, lr_update=ratio * lr)
    assert law.norm == pytest.approx(np.sqrt(square), rel=1e-8)
    assert law.angle == pytest.approx(angle, rel=1e-6)  # arccos loses digits, the law does not


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, -0.5])
def test_exponential_averages(beta):
    """AR(1) updates: C_k = beta^k/(1-beta^2), summed until nothing is left."""
    c = beta ** np.arange(400) / (1 - beta**2)
    square, angle = lyapunov(0.98, 0.1, np.array([1.0]), beta)
    law = decoupled_equilibrium(0.1, 0.2, c)
    assert law.norm == pytest.approx(np.sqrt(square), rel=1e-8)
    assert law.angle == pytest.approx(angle, rel=1e-8)
    if beta >= 0:  # of unit length: the law for normalised momentum
        unit = normalized_momentum_equilibrium(0.1, 0.2, beta)
        assert unit.norm == pytest.approx(law.norm * np.sqrt(1 - beta**2), rel=1e-12)
        assert unit.angle == pytest.approx(law.angle, rel=1e-10)


@given(a=st.floats(0.5, 1), relative=st.floats(1e-4, 1), direction=st.floats(0, np.pi), lr=st.floats(1e-3, 1))
def test_angle_from_relative_update_is_the_law_of_cosines(a, relative, direction, lr):
    """In the plane: w' = a w - hu with ||w'|| = ||w|| fixes the direction of u; build it and measure the angle."""
    if relative < 1 - a + 1e-6:
        return
    # ||a w - hu||^2 = 1 for a unit w along x: a^2 - 2 a ux + relative^2 = 1
    ux = (a**2 + relative**2 - 1) / (2 * a)
    uy = np.sqrt(max(relative**2 - ux**2, 0))
    turn = np.array([[np.cos(direction), -np.sin(direction)], [np.sin(direction), np.cos(direction)]])
    before, after = turn @ [1.0, 0.0], turn @ [a - ux, -uy]
    measured = 2 * np.arctan2(np.linalg.norm(after - before), np.linalg.norm(after + before))
    assert angle_from_relative_update(relative, lr, (1 - a) / lr).angle == pytest.approx(measured, rel=1e-6, abs=1e-9)


def test_angle_of_a_real_decoupled_run(simulate):
    """Off noise models altogether: the measured relative update of torch.optim.AdamW gives its measured rotation."""
    lr, wd, rows = 0.02, 1.0, 4
    sample = simulate(
        lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=wd, eps=1e-30),
        [lr] * 3_000,
        d=512,
        rows=rows,
        norm0=2.2,
        scale_invariant=True,
    )
    after, before, chord = sample.squares[1:], sample.squares[:-1], sample.chords
    inner = np.sqrt(after * before) * (1 - chord / 2)
    updates = after - 2 * (1 - lr * wd) * inner + (1 - lr * wd) ** 2 * before  # ||w' - a w||^2
    late = slice(1_000, None)
    law = angle_from_relative_update(np.sqrt((updates[late] / before[late]).mean()), lr, wd)
    measured, error = sample.angle(late, 2_000)
    # stationary only on average over 2000 steps = 40 relaxation times: (R_end/R_start - 1) enters as its square, 1e-5
    assert law.angle == pytest.approx(measured[0], rel=1e-3)
    assert error[0] > 1e-5  # the rows do differ: agreement is row by row, not by law of large numbers


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_normalized_momentum_transcribed(momentum):
    """No such class in torch: w <- a w - lr m/||m||, literally. Bar 0.3 % (theory.md 2.4), d = 2048."""
    lr, wd, rows, d = 0.05, 0.4, 4, 2_048
    law = normalized_momentum_equilibrium(lr, wd, momentum)
    torch.manual_seed(0)
    w = torch.randn(rows, d).double()
    w *= law.norm / w.norm(dim=1, keepdim=True)
    m, squares, chords = torch.zeros_like(w), [], []
    for _ in range(2_000):
        m = momentum * m + (1 - momentum) * torch.randn(rows, d).double()
        old, w = w, (1 - lr * wd) * w - lr * m / m.norm(dim=1, keepdim=True)
        squares.append(w.square().sum(1).mean().item())
        chords.append(
            torch.nn.functional.normalize(w).sub(torch.nn.functional.normalize(old)).square().sum(1).mean().item()
        )
    late = slice(300, None)
    assert law.norm == pytest.approx(np.sqrt(np.mean(squares[late])), rel=0.003)
    assert law.angle == pytest.approx(2 * np.arcsin(np.sqrt(np.mean(chords[late])) / 2), rel=0.003)


def test_leading_order_of_normalized_momentum():
    """norm^2 = lr/2wd (1+b)/(1-b), angle^2 = 2 lr wd (1-b)/(1+b), and the gap in norm is lr wd b/(1-b)/2 relative."""
    for rho in (1e-3, 1e-4):
        law = normalized_momentum_equilibrium(0.1, rho / 0.1, 0.9)
        assert law.norm**2 / (0.1**2 / (2 * rho) * 19) - 1 == pytest.approx(
            -rho * (0.9 / 0.1 + 0.9 / 1.9) + rho / 2, rel=0.02
        )
        assert law.angle**2 / (2 * rho / 19) == pytest.approx(1, abs=2 * rho)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: decoupled_equilibrium(0.1, 0.0, [1.0]), ("lr * weight_decay = 0.0", "(0, 1)")),
        (lambda: decoupled_equilibrium(0.1, 10.0, [1.0]), ("lr * weight_decay = 1.0", "(0, 1)")),
        (lambda: decoupled_equilibrium(0.1, 0.1, []), ("update_autocovariance = []", "finite")),
        (lambda: decoupled_equilibrium(0.1, 0.1, [float("nan")]), ("update_autocovariance = [nan]", "finite")),
        (lambda: decoupled_equilibrium(0.1, 0.1, [1.0, -1.0]), ("update_autocovariance", "positive")),
        (lambda: angle_from_relative_update(0.001, 0.1, 0.1), ("relative_update = 0.001", "at least")),
        (lambda: angle_from_relative_update(1.0, 1.0, 1.0), ("lr * weight_decay = 1.0", "[0, 1)")),
        (lambda: normalized_momentum_equilibrium(0.1, 0.1, 1.0), ("momentum = 1.0", "< 1")),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
