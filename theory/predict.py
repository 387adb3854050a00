"""From a recipe to a prediction, before a single step is run."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from theory.advice import warnings_for
from theory.bands import calibrated_band, prior_band, reference_band
from theory.departures.radial_gradient import equilibrium_size
from theory.equilibrium.decoupled import decoupled_equilibrium
from theory.equilibrium.sgd import gain_and_chord, sgd_gain
from theory.errors import require
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, ScaleFree, Signum
from theory.prediction import Bundle, Prediction
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.reference import Reference, check
from theory.results import angle_of_chord
from theory.trajectory.adam_l2 import adam_l2_moments
from theory.trajectory.exact_sgd import exact_sgd_path
from theory.trajectory.march import Path, march
from theory.trajectory.march_adamw import AdamWSystem
from theory.trajectory.march_sgd import SGDSystem, sgd_drive
from theory.trajectory.reference_path import reference_path
from theory.trajectory.scale_free import fixed_norm_path, scale_free_path, update_law

Array = NDArray[np.float64]

ASSUMPTIONS = {
    "adamw": (
        "gradients are zero-mean noise, independent from step to step, Gaussian in each coordinate",
        "Adam's eps is small against the gradients' root mean square; gradient clipping does not change Adam's updates",
    ),
    "sgd": ("gradients are orthogonal to the weights (scale invariance) and uncorrelated in time",),
    "scale_free": ("gradients are zero-mean noise, independent from step to step, Gaussian in each coordinate",),
}
REFERENCE = ("of tensors in the reference: update and long-run variance at a step depend on the tensor's norm alone",)
LAWS: dict[type, tuple[str, ...]] = {
    SGD: ("sgd_equilibrium", "sgd_trajectory"),
    Adam: ("adamw_equilibrium", "adamw_trajectory"),
    AdamW: ("adamw_equilibrium", "adamw_trajectory"),
    Lion: ("lion_equilibrium",),
    Signum: ("signum_equilibrium",),
    NormalizedMomentum: ("normalized_momentum_equilibrium",),
    Muon: ("muon_equilibrium",),
    Hyperball: ("hyperball_angle",),
}


def predict(recipe: Recipe, probe: Probe | None = None, *, reference: Reference | None = None) -> Prediction:
    """Predict norm, rotation and effective learning rate of every tensor, step by step.

    AdamW (and Adam without decay), Lion, Signum, normalised momentum, Muon and fixed-norm optimizers need nothing but
    the recipe. Under SGD the rotation at stationary norm follows from lr*weight_decay alone, while the norm is a
    property of the data: it needs a probe with `c2`, as does Adam with coupled decay.

    Args:
        recipe: Optimizer, schedule, steps and groups.
        probe: Measurements; with `norm`s, the prediction starts at the probe's step (tensors without one are followed
            from step 0).
        reference: What finished runs of the same network say (`theory.reference`), instead of a probe: their tensors'
            norms then grow as theirs did, in place of the law's white gradients; the others follow the laws.

    Returns:
        The prediction.

    Raises:
        InputError: If the recipe has no groups, the probe names a tensor that the recipe does not, or there are both a
            probe and a reference.

    Example:
        >>> from theory.schedules import Cosine
        >>> matrix = Group("w", (64, 64), norm0=1.3)
        >>> recipe = Recipe(AdamW(lr=1e-3, weight_decay=0.1), Cosine(warmup=10), 100, (matrix,))
        >>> round(float(predict(recipe).at(99).loc["w", "norm"]), 2)
        1.36
    """
    require(len(recipe.groups) > 0, "groups", recipe.groups, "at least one group (dl.shapes has known architectures)")
    require(probe is None or reference is None, "reference", "given beside a probe", "given alone")
    measured = dict(probe.tensors) if probe else {}
    unknown = sorted(set(measured) - {group.name for group in recipe.groups})
    require(not unknown, "probe", unknown[:3], "about tensors that the recipe has")
    start = probe.step if probe and any(p.norm is not None for p in measured.values()) else 0
    require(start < recipe.steps, "probe.step", start, f"below steps = {recipe.steps}")

    shared: dict[tuple[float, float, int], list[int]] = defaultdict(list)
    for index, group in enumerate(recipe.groups):
        begin = start if group.name in measured and measured[group.name].norm is not None else 0
        shared[group.lr_factor, recipe.decay_of(group), begin].append(index)
    bundles: list[Bundle] = []
    for (_, _, begin), members in shared.items():
        bundles += _bundles(recipe, np.array(members), measured, begin, reference)
    optimizer = recipe.optimizer
    kind = "sgd" if isinstance(optimizer, SGD) else "adamw" if isinstance(optimizer, (Adam, AdamW)) else "scale_free"
    coupled_adam = isinstance(optimizer, Adam) and any(recipe.decay_of(group) > 0 for group in recipe.groups)
    cautious = optimizer.decay is Decay.CAUTIOUS and optimizer.weight_decay > 0
    bands = tuple(
        calibrated_band()
        if group.name in measured
        else reference_band(reference.runs)
        if reference and _is_known(group, reference)
        else prior_band(
            recipe.optimizer, scale_invariant=group.scale_invariant is not None, matrix=len(group.shape) >= 2
        )
        for group in recipe.groups
    )
    laws = ("adam_l2_equilibrium",) if coupled_adam else LAWS[type(optimizer)]
    laws += ("cautious_equilibrium",) if cautious and not coupled_adam else ()
    warnings = warnings_for(recipe, measured)
    assumptions = ASSUMPTIONS[kind] + (REFERENCE if reference is not None else ())
    if any(tensor.radial != 0 for tensor in measured.values()):
        if kind == "scale_free" or coupled_adam:
            warnings += ("The probe's radial gradient is left out: it is followed under SGD and AdamW only.",)
        else:
            laws += ("radial_gradient",)
    return Prediction(
        recipe=recipe,
        probe=probe,
        bundles=tuple(bundles),
        bands=bands,
        laws=laws,
        assumptions=assumptions,
        warnings=warnings,
        start=start,
    )


def _bundles(
    recipe: Recipe,
    members: NDArray[np.int64],
    measured: dict[str, TensorProbe],
    start: int,
    reference: Reference | None,
) -> list[Bundle]:
    if reference is not None:
        check(recipe)
        known = np.array([_is_known(recipe.groups[i], reference) for i in members])
        if known.any():
            groups = [recipe.groups[i] for i in members[known]]
            square0 = np.array([group.norm0 for group in groups], dtype=np.float64) ** 2
            path = reference_path(recipe, reference, groups, square0)
            others = _bundles(recipe, members[~known], measured, start, None) if not known.all() else []
            return [Bundle(members[known], path, np.ones(len(groups))), *others]
    groups = [recipe.groups[i] for i in members]
    probes = [measured.get(group.name, TensorProbe()) for group in groups]
    steps = np.arange(recipe.steps)
    lr, shrink = recipe.lr(steps, groups[0]), recipe.shrink(steps, groups[0])
    if isinstance(recipe.optimizer, Hyperball):
        square0 = np.array([_norm0(g, p) for g, p in zip(groups, probes, strict=True)], dtype=np.float64) ** 2
        moving = np.where(square0 == 0, 0.0, 1.0)  # a tensor of zeros stays one
        return [Bundle(members, fixed_norm_path(recipe.optimizer, lr, moving, start), square0)]
    if isinstance(recipe.optimizer, ScaleFree):
        return _scale_free(recipe, members, probes, lr, shrink, start)
    if isinstance(recipe.optimizer, AdamW) or (isinstance(recipe.optimizer, Adam) and not shrink.any()):
        path, size = _adamw_path(recipe, groups, probes, lr, shrink, start)
        return [Bundle(members, path, size)]
    known = np.array(
        [probe.c2 is not None and _norm0(group, probe) is not None for group, probe in zip(groups, probes, strict=True)]
    )
    bundles = []
    if known.any():
        chosen = [(g, p) for g, p, k in zip(groups, probes, known, strict=True) if k]
        path = _coupled_path(recipe, chosen, lr, shrink, start)
        bundles.append(Bundle(members[known], path, np.ones(int(known.sum()))))
    if not known.all():
        angle = _stationary_angle(recipe, groups[0], lr, shrink)
        invariant = np.array([group.scale_invariant is not None for group in groups])
        if angle is not None and (~known & invariant).any():
            bundles.append(Bundle(members[~known & invariant], None, np.ones(0), angle))
    return bundles


def _is_known(group: Group, reference: Reference) -> bool:
    return group.name in reference.tensors and group.norm0 is not None


def _norm0(group: Group, probe: TensorProbe) -> float | None:
    return probe.norm if probe.norm is not None else group.norm0


def _scale_free(
    recipe: Recipe, members: NDArray[np.int64], probes: list[TensorProbe], lr: Array, shrink: Array, start: int
) -> list[Bundle]:
    """Lion, Signum, normalised momentum and Muon: tensors of one shape have the same updates."""
    optimizer = recipe.optimizer
    assert isinstance(optimizer, ScaleFree)
    matrices = isinstance(optimizer, Muon)  # of the others only the number of coordinates matters
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, index in enumerate(members.tolist()):
        group = recipe.groups[index]
        if not matrices or len(group.shape) == 2:
            alike[group.shape if matrices else (1,)].append(i)
    bundles = []
    for shape, chosen in alike.items():
        law = update_law(optimizer, shape)
        groups = [recipe.groups[i] for i in members[chosen]]
        per_tensor = matrices or isinstance(optimizer, NormalizedMomentum)
        size = np.array([1.0 if per_tensor else group.size for group in groups])
        norm0 = np.array([_norm0(g, probes[i]) for g, i in zip(groups, chosen, strict=True)], dtype=np.float64)
        peak, strongest = float(lr.max(initial=0.0)), float(shrink.max(initial=0.0))
        settled = np.nan
        if strongest > 0 and peak > 0:
            settled = decoupled_equilibrium(peak, strongest / peak, law.autocovariance()).norm ** 2
        square0 = np.where(np.isnan(norm0), settled, norm0**2 / size)
        growth, update = (
            np.array([getattr(probes[i], name) for i in chosen]) for name in ("long_run_ratio", "update_ratio")
        )
        invariant = np.array([group.scale_invariant is not None for group in groups]) & (square0 > 0)
        path = scale_free_path(lr, shrink, law, square0, invariant, start, growth, update)
        bundles.append(Bundle(members[chosen], path, size))
    return bundles


def _adamw_path(
    recipe: Recipe, groups: list[Group], probes: list[TensorProbe], lr: Array, shrink: Array, start: int
) -> tuple[Path, Array]:
    optimizer = recipe.optimizer
    assert isinstance(optimizer, (Adam, AdamW))
    size = np.array([group.size for group in groups], dtype=np.float64)
    peak = float(lr.max(initial=0.0))
    weakest = max(float(shrink.max(initial=0.0)) / peak if peak else 0.0, 1e-30)
    settled = np.sqrt(size) * np.array([equilibrium_size(p.radial, peak, weakest) for p in probes])
    norm0 = np.array([_norm0(g, p) for g, p in zip(groups, probes, strict=True)], dtype=np.float64)
    norm0 = np.where(np.isnan(norm0), settled if shrink.any() else np.nan, norm0)
    invariant = np.array([group.scale_invariant is not None for group in groups]) & (norm0 > 0)
    system = AdamWSystem(
        lr,
        shrink,
        recipe.betas(),
        norm0**2 / size,
        invariant,
        growth_ratio=np.array([p.long_run_ratio for p in probes]),
        update_ratio=np.array([p.update_ratio for p in probes]),
        noise=recipe.noise(),
        radial=np.array([p.radial for p in probes]),
    )
    return march(system, lr, start, _kinks(recipe)), size


def _kinks(recipe: Recipe) -> list[int]:
    """Steps at which betas or batch size change."""
    noise = recipe.noise()
    changes = np.flatnonzero(np.diff(noise, prepend=noise[0]))
    return [*changes.tolist(), *(step for step, _ in recipe.betas_schedule or ())]


def _coupled_path(
    recipe: Recipe, chosen: list[tuple[Group, TensorProbe]], lr: Array, shrink: Array, start: int
) -> Path:
    optimizer = recipe.optimizer
    square0 = np.array([_norm0(g, p) for g, p in chosen], dtype=np.float64) ** 2
    c2 = np.array([p.c2 for _, p in chosen], dtype=np.float64)
    radial = np.array([p.radial for _, p in chosen])
    invariant = np.array([g.scale_invariant is not None for g, _ in chosen])
    decay = np.full(recipe.steps, recipe.decay_of(chosen[0][0]))
    if isinstance(optimizer, SGD):
        drive = None if optimizer.nesterov else sgd_drive(lr, shrink, optimizer.momentum, optimizer.dampening)
        if drive is not None:
            mu, noise = optimizer.momentum, recipe.noise()
            system = SGDSystem(drive, lr, shrink, mu, optimizer.dampening, square0, c2, invariant, noise, radial)
            return march(system, lr, start, _kinks(recipe))
        per_step = recipe.noise()[start:, None] * c2
        return exact_sgd_path(optimizer, lr[start:], decay[start:], square0, per_step, invariant, start, radial)
    assert isinstance(optimizer, Adam)
    d = np.array([g.size for g, _ in chosen], dtype=np.float64)
    betas, noise = recipe.betas()[start:], recipe.noise()[start:]
    squares, angles = adam_l2_moments(lr[start:], decay[start:], betas, square0, c2, d, invariant, start, noise)
    return Path.from_steps(np.vstack([square0, squares]), angles, start)


def _stationary_angle(recipe: Recipe, group: Group, lr: Array, shrink: Array) -> Array | None:
    """Rotation per step at stationary norm: known for SGD from lr*weight_decay alone."""
    optimizer, decay = recipe.optimizer, recipe.decay_of(group)
    if not isinstance(optimizer, SGD) or decay == 0:
        return None
    moving = lr > 0
    if moving.any():
        momentum, dampening, nesterov = optimizer.momentum, optimizer.dampening, optimizer.nesterov
        sgd_gain(float(lr.max()), decay, momentum, dampening, nesterov)  # refuses what is not stable
        kappa = 1 - dampening if momentum else 1.0
        chord = gain_and_chord(np.where(moving, lr, lr.max()), decay, momentum, kappa, nesterov)[1]
        return np.where(moving, angle_of_chord(chord), 0.0)
    return np.zeros_like(lr)
