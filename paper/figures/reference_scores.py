"""Runs of a sweep predicted from one or two of them, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from theory.optimizers import AdamW
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.reference import Measured, reference
from theory.schedules import Constant, Cosine

STEPS = 1_500
"""Length of most runs."""
WARMUP, FINAL, EVERY, WINDOW = 100, 0.1, 10, 50
"""Warm-up and end of the cosine, steps between measurements, steps between two points that are compared."""
CENTRE = (8e-3, 0.1)
"""Rate and decay of the runs with another schedule or length, and the one reference."""
PAIRS = ((2e-3, 8e-3), (4e-3, 16e-3))
"""Rates of two references, at the decay of the centre."""
SIZES = {"c_attn.weight.q": 64 * 64, "c_attn.weight.k": 64 * 64, "c_attn.weight.v": 64 * 64}
SIZES |= {"attn.c_proj.weight": 64 * 64, "mlp.c_fc.weight": 64 * 256, "mlp.c_proj.weight": 64 * 256}
"""Coordinates of a block matrix, by the end of its name."""


@dataclass(frozen=True)
class Run:
    """One run of the table."""

    measured: Measured
    """Norms and updates."""
    angles: Mapping[str, pd.Series]
    """By tensor."""
    lr: float
    """Peak rate."""
    wd: float
    """Decay."""
    usual: bool
    """Whether schedule and length are those of the grid."""


def read(table: pd.DataFrame, seed: int) -> list[Run]:
    """The runs of one seed.

    Args:
        table: The figure's table.
        seed: The seed.

    Returns:
        The runs.
    """
    out = []
    for _, rows in table[table["seed"] == seed].groupby("run", sort=False):
        lr, wd, kind, steps = rows[["lr", "wd", "kind", "steps"]].iloc[0]
        wide = {q: part.pivot(index="step", columns="tensor", values="value") for q, part in rows.groupby("quantity")}
        norm, names = wide["norm"], list(wide["norm"].columns)
        at = norm.index[norm.index >= 0].to_numpy(np.int64)
        groups = tuple(Group(name, (size_of(name),), norm0=float(norm.loc[-1, name])) for name in names)
        schedule = Constant(warmup=WARMUP) if kind == "constant" else Cosine(warmup=WARMUP, final=FINAL)
        recipe = Recipe(AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=wd), schedule, int(steps), groups)
        norms, updates = (
            {name: frame.loc[at, name].to_numpy() for name in names} for frame in (norm, wide["relative_update"])
        )
        usual = kind == "cosine" and steps == STEPS
        out.append(Run(Measured(recipe, at, norms, updates), dict(wide["angle"].items()), lr, wd, usual))
    return out


def size_of(name: str) -> int:
    """Coordinates of a block matrix by the end of its name."""
    return next(size for end, size in SIZES.items() if name.endswith(end))


def points(run: Run, values: Callable[[np.ndarray], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Predicted over measured in the second half of a run.

    Args:
        run: The run.
        values: From steps to predictions, by quantity.

    Returns:
        By quantity: predicted and measured, stacked, shape (2, windows, tensors).
    """
    names = [group.name for group in run.measured.recipe.groups]
    half = run.measured.recipe.steps // 2
    steps = run.measured.steps[run.measured.steps >= half]
    per = WINDOW // EVERY
    steps = steps[: len(steps) // per * per]
    found = values(steps)
    norm = np.stack([run.measured.norms[n][np.isin(run.measured.steps, steps)] for n in names], 1)
    angle = np.stack([run.angles[n].loc[steps].to_numpy() for n in names], 1)
    rms = lambda x: np.sqrt(np.square(x).reshape(-1, per, x.shape[1]).mean(1))
    last = slice(per - 1, None, per)
    return {
        "norm": np.stack([found["norm"][last], norm[last]]),
        "angle": np.stack([rms(found["angle"]), rms(angle)]),
    }


_latest: list[tuple[pd.DataFrame, pd.DataFrame]] = []  # the claims and the drawing of one table share its scores


def scored(table: pd.DataFrame) -> pd.DataFrame:
    """Every prediction beside what was measured.

    Args:
        table: The figure's table.

    Returns:
        Columns predicted, measured, tensor, way (two references, one reference; a priori, of the first seed), quantity,
        seed, usual.
    """
    if _latest and _latest[0][0] is table:
        return _latest[0][1]
    parts = []
    plans = [("two references", [(lr, CENTRE[1]) for lr in pair]) for pair in PAIRS]
    plans += [("one reference", [CENTRE]), ("a priori", [])]
    for seed in sorted(table["seed"].unique()):
        every = read(table, seed)
        usual = {(run.lr, run.wd): run for run in every if run.usual}
        for way, keys in plans:
            if not all(each in usual for each in keys) or (not keys and seed != table["seed"].min()):
                continue  # the laws alone say nearly the same for every seed
            known = reference([usual[each].measured for each in keys]) if keys else None
            low, high = (keys[0][0], keys[1][0]) if len(keys) == 2 else (0.0, np.inf)
            for run in every:
                if (run.usual and (run.lr, run.wd) in keys) or not low <= run.lr <= high:
                    continue
                prediction = predict(run.measured.recipe, reference=known)
                names = [group.name for group in run.measured.recipe.groups]
                for quantity, (ours, truth) in points(run, prediction.values).items():
                    frame = pd.DataFrame({"predicted": ours.ravel(), "measured": truth.ravel()})
                    frame["tensor"] = np.tile(names, len(ours))
                    parts.append(frame.assign(way=way, quantity=quantity, seed=seed, usual=run.usual))
    columns = ["predicted", "measured", "tensor", "way", "quantity", "seed", "usual"]
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    _latest[:] = [(table, scores)]
    return scores
