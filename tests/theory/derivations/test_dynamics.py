"""Proofs of dynamics, twins, over-training, one pass, memory and conventions: the derived formulas are the laws."""

import inspect
import itertools
import math
from functools import cache

import numpy as np
import pytest

import theory
from theory.derivations import (
    adamw_exponential_lr,
    adamw_trajectory,
    bias_variance,
    closed_form_norm,
    convert_decay,
    decay_convention_norm,
    direction_autocorrelation,
    effective_lr,
    ema_weights,
    eos_period,
    gradient_rise,
    label_noise_balance,
    label_noise_excess,
    least_squares_stationary,
    least_squares_trajectory,
    lion_exponential_lr,
    lion_exponential_schedule,
    noise_regulariser,
    relaxation_time,
    sgd_exponential_lr,
    sgd_exponential_schedule,
    sgd_trajectory,
    sphere_eos,
    time_to_eos,
    timescale,
    transfer,
)


@cache
def prove(module, **variant):
    return module.derivation(**variant)


def draw(rng, low, high):
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def rates(rng, low=1e-3, high=0.3):
    """A learning rate and a decay whose product lies in [low, high], where arccos keeps ten digits of the angle."""
    lr = draw(rng, 0.01, 1.0)
    return {"lr": lr, "weight_decay": draw(rng, low, high) / lr}


def schedule(rng, steps, name="schedule"):
    """Unequal learning rates and a decay that takes between 0.1 % and 10 % of the weights in each step."""
    lrs = tuple(draw(rng, 0.05, 0.5) for _ in range(steps))
    return {name: lrs, "weight_decay": draw(rng, 0.02, 0.2)}


def betas(rng):
    return (rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.995))


def real_roots(rng):
    """SGD whose decay alone does not oscillate: lr*weight_decay at most 90 % of (1-sqrt(momentum))^2."""
    mu, lr = rng.uniform(0.05, 0.9), draw(rng, 0.01, 1.0)
    return {"momentum": mu, "lr": lr, "weight_decay": rng.uniform(0.05, 0.9) * (1 - math.sqrt(mu)) ** 2 / lr}


def relaxing(rng):
    """SGD at a tenth of that, where no eigenvalue of the moments oscillates either."""
    point = real_roots(rng)
    return point | {"weight_decay": point["weight_decay"] / 10}


def modes(rng, n):
    return tuple(draw(rng, 0.05, 0.3) for _ in range(n))


def as_run(inputs, rule, lr_rule):
    """The law's arguments for the proof's."""
    names = ("lr", "weight_decay", "batch_size", "steps", "width", "dataset_size")
    want = dict(zip((*names[2:], "tokens_per_parameter_ratio"), inputs["want"], strict=False))
    return {"have": dict(zip(names, inputs["have"], strict=True)), "want": want | {"lr_rule": lr_rule}, "rule": rule}


def change(rng, rule):
    """lr, decay, batch, steps, width and data of a run, and the wanted sizes, all within a factor of three."""
    have = (draw(rng, 1e-3, 1e-2), draw(rng, 0.01, 0.1), *(draw(rng, 100, 300) for _ in range(4)))
    tokens = (draw(rng, 0.3, 3),) if rule == "tokens_per_parameter" else ()
    return {"have": have, "want": (*(draw(rng, 100, 300) for _ in range(4)), *tokens)}


def shape_of(rng, kind):
    """kappa from an eighth to fifty, a start, and what the kind needs besides."""
    point = {"kappa": draw(rng, 0.125, 50), "r0": rng.uniform(0, 4)}
    own = {"linear": ("x", 1), "warmup": ("x", 1), "cosine": ("floor", 1), "wsd": ("decay_fraction", 1)}
    if kind in own:
        point[own[kind][0]] = rng.uniform(0.05, 0.95)
    further = {"cosine": {"s": rng.uniform(0.1, 1)}, "invsqrt": {"y": draw(rng, 1, 9)}}
    return point | further.get(kind, {})


def converted(rng, pair):
    lr, peak = rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.5)
    point = {"value": rng.uniform(0.01, 0.3), "lr": lr, "lr_max": peak}
    return point | ({"momentum": rng.uniform(0.1, 0.9), "dampening": rng.uniform(0, 0.9)} if "coupled" in pair else {})


CONVENTIONS = ("coupled", "decoupled", "independent", "corrected", "cautious", "scheduled")
SAME = lambda inputs: inputs
# law, keywords of the proof, an input point (of the proof), arguments of the law for it
FORMULAS = [
    *(
        (adamw_trajectory, {"steps": n, "scale_invariant": flag}, lambda rng, n=n: {
            **schedule(rng, n), "betas": betas(rng), "norm0": draw(rng, 0.5, 5), "d": 20,
            "noise_kurtosis": rng.uniform(1, 4),
        }, lambda inputs, flag=flag: inputs | {"scale_invariant": flag})
        for n, flag in itertools.product((1, 2, 4), (True, False))
    ),
    *(
        (sgd_trajectory, {"steps": n, "nesterov": nesterov, "scale_invariant": second == "c2"},
         lambda rng, n=n, nesterov=nesterov, second=second: {
            **schedule(rng, n), "momentum": rng.uniform(0.1, 0.95), "norm0": draw(rng, 0.5, 5),
            second: draw(rng, 0.5, 5),
            **({} if nesterov else {"dampening": rng.uniform(0, 0.9)}),
        }, lambda inputs, nesterov=nesterov: inputs | {"nesterov": nesterov})
        for n, nesterov, second in itertools.product((1, 2, 4), (False, True), ("c2", "g2"))
    ),
    *(
        (relaxation_time, {"optimizer": "sgd", "scale_invariant": flag}, relaxing,
         lambda inputs, flag=flag: inputs | {"optimizer": "sgd", "scale_invariant": flag})
        for flag in (True, False)
    ),
    *(
        (relaxation_time, {"optimizer": "adamw"}, rates, lambda inputs, name=name: inputs | {"optimizer": name})
        for name in ("adamw", "lion", "signum", "muon", "normalized_momentum")
    ),
    (relaxation_time, {"optimizer": "adam"}, rates, lambda inputs: inputs | {"optimizer": "adam"}),
    *(
        (closed_form_norm, {"kind": kind}, lambda rng, kind=kind: shape_of(rng, kind),
         lambda inputs, kind=kind: inputs | {"kind": kind})
        for kind in closed_form_norm.KINDS
    ),
    *(
        (gradient_rise, {"kind": kind}, lambda rng: {"kappa": draw(rng, 0.125, 50)},
         lambda inputs, kind=kind: inputs | {"kind": kind})
        for kind in ("linear", "cosine")
    ),
    *(
        (decay_convention_norm, {"convention": convention, "kind": kind},
         lambda rng: {"kappa": draw(rng, 0.125, 50), "r0": rng.uniform(0, 4)},
         lambda inputs, convention=convention, kind=kind: inputs | {"convention": convention, "kind": kind})
        for convention, kind in itertools.product(decay_convention_norm.CONVENTIONS, decay_convention_norm.KINDS)
    ),
    *(
        (convert_decay, {"source": pair[0], "target": pair[1]}, lambda rng, pair=pair: converted(rng, pair),
         lambda inputs, pair=pair: inputs | {"source": pair[0], "target": pair[1]})
        for pair in itertools.permutations(CONVENTIONS, 2)
    ),
    (ema_weights, {}, lambda rng: {
        "peak": draw(rng, 0.05, 0.5), "steps": int(rng.integers(1, 60)), "weight_decay": draw(rng, 0.02, 0.5),
    }, lambda inputs: {
        "schedule": {"kind": "constant", "peak": inputs["peak"], "steps": inputs["steps"]},
        "weight_decay": inputs["weight_decay"],
    }),
    *(
        (direction_autocorrelation, {}, lambda rng, lag=lag: {
            "momentum": rng.uniform(0, 0.5), "lags": lag, **rates(rng),
        }, SAME)
        for lag in (0, 1, 2, 17)
    ),
    *(
        (direction_autocorrelation, {"equal": True}, lambda rng, lag=lag: {"lags": lag, **rates(rng)},
         lambda inputs: inputs | {"momentum": 1 - inputs["lr"] * inputs["weight_decay"]})
        for lag in (0, 1, 2, 17)
    ),
    (timescale, {}, lambda rng: {
        "batch_size": int(rng.integers(1, 500)), "dataset_size": int(rng.integers(500, 50_000)),
        "steps": int(rng.integers(1, 9_000)), "momentum": rng.uniform(0.1, 0.95), "dampening": rng.uniform(0, 0.9),
        **rates(rng),
    }, SAME),
    *(
        (transfer, {"rule": rule, "lr_rule": lr_rule}, lambda rng, rule=rule: change(rng, rule),
         lambda inputs, rule=rule, lr_rule=lr_rule: as_run(inputs, rule, lr_rule))
        for rule, lr_rule in itertools.product(transfer.RULES, transfer.LR_RULES)
    ),
    (sgd_exponential_lr, {}, real_roots, SAME),
    *(
        (sgd_exponential_schedule, {"steps": n}, lambda rng, n=n: {
            **schedule(rng, n, "lrs"), "momentum": rng.uniform(0.1, 0.5), "dampening": rng.uniform(0, 0.9),
        }, SAME)
        for n in (1, 2, 4)
    ),
    *(
        (adamw_exponential_lr, {"steps": n}, lambda rng, n=n: {
            **schedule(rng, n, "lrs"), "betas": betas(rng), "eps": draw(rng, 1e-9, 1e-2),
        }, SAME)
        for n in (1, 2, 4)
    ),
    (lion_exponential_lr, {}, lambda rng: {"betas": betas(rng), **rates(rng)}, SAME),
    *(
        (lion_exponential_schedule, {"steps": n}, lambda rng, n=n: {
            **schedule(rng, n, "lrs"), "betas": betas(rng),
        }, SAME)
        for n in (1, 2, 4)
    ),
    (sphere_eos, {}, lambda rng: {
        "sharpness": draw(rng, 0.1, 9), "momentum": rng.uniform(0, 0.95), **rates(rng),
    }, SAME),
    (time_to_eos, {}, lambda rng: {
        "norm0": draw(rng, 20, 90), "sharpness": draw(rng, 0.1, 9), **real_roots(rng),
    }, SAME),
    (eos_period, {}, rates, SAME),
    (label_noise_balance, {}, lambda rng: {
        "mean_square_residual": rng.uniform(0.01, 0.2), "steps": int(rng.integers(1, 60)), **rates(rng),
    }, SAME),
    *(
        (label_noise_excess, {"modes": n}, lambda rng, n=n: {
            "eigenvalues": modes(rng, n), "lr": draw(rng, 0.01, 5), "noise_variance": draw(rng, 0.1, 9), "n": 7,
        }, SAME)
        for n in (1, 3)
    ),
    (noise_regulariser, {}, lambda rng: {
        "lr": draw(rng, 0.01, 1), "batch_size": int(rng.integers(1, 99)), "residual_variance": draw(rng, 0.1, 9),
    }, SAME),
    *(
        (least_squares_stationary, {"modes": n}, lambda rng, n=n: {
            "eigenvalues": modes(rng, n), "lr": draw(rng, 0.1, 1), "noise_variance": draw(rng, 0.1, 9), "batch_size": 3,
        }, SAME)
        for n in (1, 3)
    ),
    *(
        (module, {"dimensions": d, "steps": n}, lambda rng, d=d, n=n: {
            "eigenvalues": modes(rng, d), "w_star": tuple(rng.normal(size=d)), "noise_variance": draw(rng, 0.1, 9),
            "batch_size": int(rng.integers(1, 9)), **schedule(rng, n),
        }, SAME)
        for module, d, n in (
            (least_squares_trajectory, 1, 1), (least_squares_trajectory, 1, 3), (least_squares_trajectory, 2, 2),
            (least_squares_trajectory, 3, 2), (bias_variance, 1, 3), (bias_variance, 2, 2),
        )
    ),
    *(
        (effective_lr, {"optimizer": name}, lambda rng: {"lr": draw(rng, 0.01, 1), "norm": draw(rng, 0.1, 9)},
         lambda inputs, name=name: inputs | {"optimizer": name})
        for name in ("sgd", "adam_l2", "adamw", "lion", "signum", "muon")
    ),
]  # fmt: skip


def last(computed, field):
    """The law's value for a field of the proof: of the last step, or of one beta of it, or the number it returns."""
    name, _, index = field.partition("[")
    values = np.asarray(getattr(computed, name, computed), dtype=np.float64)
    return float(np.ravel(values[..., int(index[:-1])] if index else values)[-1])


@pytest.mark.parametrize(("module", "variant", "point", "arguments"), FORMULAS)
def test_the_formula_is_the_law(module, variant, point, arguments):
    """The same real function in float64, three random inputs: 1e-9 is what cancellation in either form leaves."""
    proof = prove(module, **variant)
    assert proof.result
    rng = np.random.default_rng(0)
    for _ in range(3):
        inputs = point(rng)
        assert inputs.keys() >= proof.inputs.keys()
        given = arguments(inputs)
        assert given.keys() >= inspect.signature(getattr(theory, proof.law)).parameters.keys() & inputs.keys()
        computed = getattr(theory, proof.law)(**given)
        for field, value in proof.evaluate(**inputs).items():
            assert value == pytest.approx(last(computed, field), rel=1e-9, abs=1e-15), (field, inputs)
