"""Single steps of the proofs of dynamics: printed recursions run, limits approached in their order, matrices."""

import math

import numpy as np
import pytest
import sympy as sp

import theory
from theory.derivations import (
    closed_form_norm,
    decay_convention_norm,
    derive,
    direction_autocorrelation,
    effective_lr,
    gradient_rise,
    relaxation_time,
    sgd_trajectory,
)


def printed(proof):
    """Right-hand sides of a proof's equations by the name of the left-hand side; of two, the last."""
    return {str(e.lhs): e.rhs for step in proof.steps for e in step.equations}


@pytest.fixture
def value(plain):
    """Evaluate an expression at values by the names of its symbols."""
    return lambda expression, at: float(sp.lambdify([], plain(expression).subs(at), ["scipy", "numpy"])())


@pytest.fixture
def matrix(plain):
    return lambda expression, at: np.array(sp.Matrix(plain(expression)).subs(at).evalf(17).tolist(), dtype=float)


def quick(expression, plain, names):
    return sp.lambdify([sp.Symbol(name) for name in names], plain(expression), "numpy")


def shrinks(gaps, factor, rel=0.05):
    """Whether halving the small quantity divides the gap by `factor`, the order of what was left out."""
    return gaps[0] / gaps[1] == pytest.approx(factor, rel=rel) and gaps[1] != 0


@pytest.mark.parametrize(("nesterov", "invariant"), [(False, True), (True, True), (False, False), (True, False)])
def test_printed_step_of_sgd_is_the_law(nesterov, invariant, plain):
    proof = printed(sgd_trajectory.derivation(nesterov=nesterov, scale_invariant=invariant))
    names = ("W", "X", "B", "Q", "eta", "lambda", "k", "m", "mu")
    step = [quick(proof[name], plain, names) for name in ("W'", "X'", "B'", r"E\langle w,w'\rangle")]
    lrs, decay, mu, tau, second = (
        np.random.default_rng(0).uniform(0.05, 0.5, 30),
        0.1,
        0.8,
        0.0 if nesterov else 0.3,
        0.7,
    )
    state, norms, angles = (1.44, 0.0, 0.0), [], []
    for t, lr in enumerate(lrs):
        k, m = (1, 0) if t == 0 else (1 - tau, mu)
        noise = quick(proof["Q"], plain, ("W", "c^2", "g^2"))(state[0], second, second)
        *moved, overlap = (f(*state, noise, lr, decay, k, m, mu) for f in step)
        angles.append(math.acos(overlap / math.sqrt(state[0] * moved[0])))
        norms.append(math.sqrt(moved[0]))
        state = tuple(moved)
    noise = {"c2" if invariant else "g2": second}
    law = theory.sgd_trajectory(lrs, decay, mu, nesterov, norm0=1.2, dampening=tau, **noise)
    assert law.norm == pytest.approx(norms, rel=1e-9)
    assert law.angle == pytest.approx(angles, rel=1e-9)


def test_printed_step_of_adamw_is_the_law(plain):
    proof = printed(derive("adamw_trajectory"))
    betas, d, decay, kurtosis = (0.7, 0.95), 20.0, 0.1, 2.5
    one_step, long_run = theory.equilibrium.adamw.second_moment_corrections(betas, kurtosis)
    lrs = np.random.default_rng(0).uniform(0.05, 0.5, 30)
    names = (
        "W",
        "X",
        "M",
        "V",
        "q",
        "a",
        "h",
        "eta",
        "lambda",
        "beta_1",
        "beta_2",
        "d",
        "t",
        "S",
        "U",
        "V'",
        "W'",
        "M'",
    )
    run = {name: quick(proof[name], plain, names) for name in ("q", "V'", "a", "h", "W'", "X'", "M'", "cos")}
    at = dict.fromkeys(names, 0.0) | {"W": 1.44, "lambda": decay, "beta_1": betas[0], "beta_2": betas[1], "d": d}
    at |= {"S": long_run, "U": one_step}
    norms, angles = [], []
    for t, lr in enumerate(lrs, start=1):
        at |= {"eta": lr, "t": t}
        for name in ("q", "V'", "a", "h", "W'", "X'", "M'", "cos"):
            at[name] = run[name](*(at[n] for n in names))
        norms.append(math.sqrt(at["W'"]))
        angles.append(math.acos(at["cos"]))
        at |= {name: at[f"{name}'"] for name in "WXMV"}
    law = theory.adamw_trajectory(lrs, decay, betas, norm0=1.2, d=20, noise_kurtosis=kurtosis)
    assert law.norm == pytest.approx(norms, rel=1e-9)
    assert law.angle == pytest.approx(angles, rel=1e-9)


def test_printed_recursions_of_the_twins_are_the_laws(plain):
    """40 unequal steps from the printed equations of one step: alpha of SGD, k and betas of Lion and AdamW, eps."""
    lrs, decay = np.random.default_rng(0).uniform(0.05, 0.5, 40), 0.1
    sgd, mu, kappa = printed(derive("sgd_exponential_schedule")), 0.3, 0.8
    alpha = quick(sgd["alpha_t"], plain, ("eta_t", "eta_{t-1}", "alpha_{t-1}", "lambda", "mu", "kappa"))
    rate = quick(sgd["eta'_t"], plain, ("eta_t", "P_t", "alpha_t"))
    size, now, rates, sizes = 1.0, 1 - lrs[0] * decay, [], []
    for t, lr in enumerate(lrs):
        now = alpha(lr, lrs[t - 1], now, decay, mu, kappa) if t else now
        rates.append(rate(lr, size, now))
        size *= now
        sizes.append(size)
    law = theory.sgd_exponential_schedule(lrs, decay, mu, 1 - kappa)
    assert law.lr == pytest.approx(rates, rel=1e-9)
    assert law.norm_ratio == pytest.approx(sizes, rel=1e-9)

    lion, (b1, b2) = printed(derive("lion_exponential_schedule")), (0.8, 0.95)
    first, second = (quick(lion[f"beta{n}'"], plain, ("a_{t-1}", f"beta{n}", "k_{t-1}")) for n in ("_1", ""))
    new_k = quick(lion["k_t"], plain, ("beta", "beta'"))
    rate = quick(lion["eta'_t"], plain, ("eta_t", "a_t", "A_{t-1}"))
    k, size, pairs, rates = float(lion["k_0"]), 1.0, [(b1, b2)], []
    for t, lr in enumerate(lrs):
        if t:
            pairs.append(tuple(f(1 - lrs[t - 1] * decay, b, k) for f, b in ((first, b1), (second, b2))))
            k = new_k(b2, pairs[-1][1])
        rates.append(rate(lr, 1 - lr * decay, size))
        size *= 1 - lr * decay
    law = theory.lion_exponential_schedule(lrs, decay, (b1, b2))
    assert law.lr == pytest.approx(rates, rel=1e-9)
    assert np.ravel(law.betas) == pytest.approx(np.ravel(pairs), rel=1e-9)

    adam = printed(derive("adamw_exponential_lr"))
    fast = [quick(adam[f"beta_{n}'"], plain, ("a_{t-1}", f"beta_{n}", f"k_{n}^-")) for n in (1, 2)]
    new = [quick(adam[f"k_{n}"], plain, (f"beta_{n}", f"beta_{n}'")) for n in (1, 2)]
    names = ("eta_t", "a_t", "A_{t-1}", "k_1", "k_2", "beta_1", "beta_2", "beta_1'", "beta_2'", "t", "epsilon", "f")
    factor, eps, rate = (quick(adam[name], plain, names) for name in ("f", "epsilon'", "eta'_t"))
    ks, size, own, rows = [1.0, 1.0], 1.0, [b1, b2], []
    for t, lr in enumerate(lrs):
        if t:
            own = [f(1 - lrs[t - 1] * decay, b, k) for f, b, k in zip(fast, (b1, b2), ks, strict=True)]
            ks = [f(b, c) for f, b, c in zip(new, (b1, b2), own, strict=True)]
        at = [lr, 1 - lr * decay, size, *ks, b1, b2, *own, t + 1, 0.01, 0.0]
        at[-1] = factor(*at)
        rows.append((rate(*at), *own, eps(*at)))
        size *= 1 - lr * decay
    law = theory.adamw_exponential_lr(lrs, decay, (b1, b2), 0.01)
    assert np.column_stack([law.lr, law.betas, law.eps]) == pytest.approx(np.asarray(rows), rel=1e-9)


def test_printed_weights_of_the_average_are_the_law(value):
    """Unequal rates, and constant ones by the printed sums; the long-run limit leaves out a^T, one per cent here."""
    proof = printed(derive("ema_weights"))
    shrinks_ = (0.1, 0.25, 0.3)
    law = theory.ema_weights(np.array(shrinks_) / 0.5, 0.5)
    at = {f"rho_{n}": rho for n, rho in enumerate(shrinks_)}
    assert law.weight == pytest.approx([value(proof[f"c_{n}"], at) for n in range(3)], rel=1e-12)
    assert law.initial == pytest.approx(value(proof["c_{init}"], at), rel=1e-12)
    law = theory.ema_weights(np.full(30, 0.2), 0.5)
    age, at = np.arange(29, -1, -1.0), {"a": 0.9, "T": 30}
    for name, sum_ in ((r"\sum c_j", 1.0), (r"\sum c_j^2", law.weight), (r"\sum jc_j", age)):
        assert value(proof[name], at) == pytest.approx(float(np.sum(law.weight * sum_)), rel=1e-12)
    long = [theory.ema_weights(np.full(n, 0.2), 0.5).n_eff for n in (40, 80)]
    gaps = [value(proof[r"n_\infty"], {"rho": 0.1}) / n - 1 for n in long]
    assert gaps[0] / gaps[1] == pytest.approx(0.9**-40, rel=0.05)


@pytest.mark.parametrize("kind", closed_form_norm.KINDS[:-1])
def test_solutions_obey_their_equation(kind, plain, value):
    """dr/ds of the printed solution (integral and all, by Leibniz's rule) against the printed right-hand side."""
    steps = closed_form_norm.derivation(kind).steps
    solution, schedule = (next(e.rhs for e in steps[4].equations if str(e.lhs) == name) for name in "rx")
    rate = next(e.rhs for e in steps[3].equations)
    at, s = {"kappa": 1.3, "r_0": 0.4, "f": 0.2}, 2.5 if kind == "invsqrt" else 0.6
    check_flow(plain(solution), plain(schedule), plain(rate).subs("l", 1), at, s, value)
    assert value(plain(solution).subs("s", 1 if kind == "invsqrt" else 0), at) == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("convention", decay_convention_norm.CONVENTIONS)
def test_conventions_obey_their_equation(convention, plain, value):
    for kind in decay_convention_norm.KINDS:
        steps = decay_convention_norm.derivation(convention, kind).steps
        rate, schedule, solution = (steps[4].equations[1].rhs, steps[5].equations[0].rhs, steps[6].equations[-1].rhs)
        check_flow(plain(solution), plain(schedule), plain(rate), {"kappa": 1.3, "r_0": 0.4}, 0.6, value)
        if convention == "corrected":  # the displacement's own equation, y = r - 1
            own = plain(steps[6].equations[0].rhs).subs(sp.Function("y")(sp.Symbol("s")), plain(solution) - 1)
            at = {"kappa": 1.3, "r_0": 0.4, "s": 0.6}
            assert value(plain(solution).diff(sp.Symbol("s")), at) == pytest.approx(value(own, at), rel=1e-9)


def check_flow(solution, schedule, rate, at, s, value):
    at = at | {"s": s}
    r, x = value(solution, at), value(schedule, at)
    change = value(solution.diff(sp.Symbol("s")).doit(deep=False), at)
    assert change == pytest.approx(value(rate.subs({"r": r, "x": x}), at), rel=1e-8)


@pytest.mark.parametrize(("proof", "limit"), [
    (closed_form_norm.derivation(), "Derivative(R(t), t)"), (relaxation_time.derivation("adam"), "dR"),
])  # fmt: skip
def test_slow_changes_are_derivatives(proof, limit, value):
    """The printed change of one step over epsilon, against its limit: what is left out is of first order."""
    proof = printed(proof)
    at = {"eta": 0.3, "lambda": 0.2, "lambda_0": 0.2, "R": 1.7, "c": 2.0, "s": 0.8}
    gaps = [value(proof["R'-R"], at | {"epsilon": e}) / e - value(proof[limit], at) for e in (1e-3, 5e-4)]
    assert shrinks(gaps, 2)


@pytest.mark.parametrize("invariant", [True, False])
def test_relaxation_of_sgd(invariant, plain, value, matrix):
    """J is the derivative of the printed step (by differences, to 1e-7), and the cubic and its root are J's."""
    proof = relaxation_time.derivation("sgd", invariant)
    found = printed(proof)
    at = {"eta": 0.3, "lambda": 0.02, "mu": 0.5}
    gain, noise = value(found["K"], at), 0.7
    j = matrix(found["J"], at | {"K": gain})
    step = [quick(found[name], plain, ("W", "X", "B", "Q", *at)) for name in ("W'", "X'", "B'")]
    settled = np.array([gain * noise, 0.0, 0.0])
    for _ in range(3000):  # to the fixed point, 3e-12 away
        settled = np.array([f(*settled, noise, *at.values()) for f in step])
    assert settled[0] == pytest.approx(gain * noise, rel=1e-9)
    follow = lambda y: np.array([f(*y, noise * settled[0] / y[0] if invariant else noise, *at.values()) for f in step])
    shifts = np.eye(3) * 1e-6
    differences = np.column_stack([(follow(settled + h) - follow(settled - h)) / 2e-6 for h in shifts])
    assert j == pytest.approx(differences, abs=1e-7)
    coefficients = [value(found[name], at) for name in ("c_2", "c_1", "c_0")]
    assert coefficients == pytest.approx(np.poly(j)[1:], rel=1e-9)
    largest = float(np.max(np.abs(np.linalg.eigvals(j))))
    assert proof.evaluate(lr=0.3, weight_decay=0.02, momentum=0.5)["steps"] == pytest.approx(
        -1 / math.log(largest), rel=1e-9
    )


def test_equal_roots_are_a_limit(value):
    """The general cosine at momenta close to a: the limit's error is of first order."""
    general, equal = (direction_autocorrelation.derivation(flag) for flag in (False, True))
    at = {"lr": 0.3, "weight_decay": 0.2, "lags": 7}
    gaps = [general.evaluate(momentum=0.94 * (1 - h), **at)["cos"] - equal.evaluate(**at)["cos"] for h in (1e-3, 5e-4)]
    assert shrinks(gaps, 2)


def test_memory_to_first_order(value):
    """Logarithm, slope of the root and shrink of SGD: relative errors of first order in lr*weight_decay."""
    found = printed(derive("timescale"))
    gaps = {"L": [], "rho_long": [], r"dx/d\lambda": []}
    for decay in (0.02, 0.01):
        at = {"eta": 0.3, "lambda": decay, "mu": 0.5, "tau": 0.2, "k": 5.0}
        middle = 1.5 - 0.3 * decay * 0.8
        root = (middle + math.sqrt(middle**2 - 2)) / 2
        exact = {"L": 5 * math.log1p(-0.3 * decay), "rho_long": 1 - root, r"dx/d\lambda": (root - 1) / decay}
        for name, gap in gaps.items():
            gap.append(value(found[name], at) / exact[name] - 1)
    assert all(shrinks(gap, 2) for gap in gaps.values())


@pytest.mark.parametrize(("kind", "scale"), [("linear", None), ("cosine", 4)])
def test_rise_for_large_kappa(kind, scale, value):
    """Linear: what is left out is exponentially small. Cosine: errors fall as kappa^(-2/3), by 4 for 8 times kappa."""
    found = printed(gradient_rise.derivation(kind))
    gap = lambda kappa: value(found["r_{lead}"], {"kappa": kappa}) / theory.closed_form_norm(kind, kappa).r - 1
    if scale is None:
        assert gap(4.0) == pytest.approx(math.erfc(2.0), rel=0.01)
        return
    assert gap(800.0) / gap(6400.0) == pytest.approx(scale, rel=0.05)
    rate = lambda z: (1 + math.cos(math.pi * (1 - z))) / 2
    assert shrinks([value(found["x"], {"z": z}) - rate(z) for z in (0.02, 0.01)], 16)
    gone = lambda z: z / 2 - math.sin(math.pi * z) / (2 * math.pi)
    assert shrinks([value(found["Lambda"], {"z": z}) - gone(z) for z in (0.02, 0.01)], 32)


def test_plane_of_an_update(matrix):
    """The printed steps in the plane of weights and update: lengths and angles that the proofs go on with."""
    found = printed(derive("sgd_norm_step"))
    at = {r"\langle\hat{w},g\rangle": 0.0, "eta": 0.3, "lambda": 0.2, "r": 1.3, "gamma": 0.7}
    law = theory.sgd_norm_step(1.3, 0.7, 0.3, 0.2).norm
    assert np.linalg.norm(matrix(found["w'"], at)) == pytest.approx(law, rel=1e-12)
    for name in ("sgd", "adamw"):
        x, y = matrix(printed(effective_lr.derivation(name))["w'"], at).ravel()
        assert -y / x == pytest.approx(theory.effective_lr(name, 0.3, 1.3) * 0.7, rel=1e-12)
