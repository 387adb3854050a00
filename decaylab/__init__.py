"""decaylab: what weight decay will do to a training run before it is run, what it did, and whether theory was right.

Only `theory` is imported here; everything that needs torch is loaded when it is first used.
"""

from __future__ import annotations

from typing import Any

import theory
from theory import shapes
from theory.citations import citations
from theory.conventions import convert_decay
from theory.convert import Conversion, convert
from theory.derivations import derive
from theory.dispatch import equilibrium, trajectory
from theory.equivalence.twin import equivalent_schedule
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, Signum
from theory.precision.check import PrecisionFinding, precision_check
from theory.predict import predict
from theory.prediction import Prediction
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.recommend import advise
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Piecewise, WarmupStableDecay

_LAZY = {
    "describe": "bridge.describe",
    "audit": "bridge.describe",
    "compare": "bridge.compare",
    "calibrate": "bridge.calibrate",
    "reference": "bridge.reference",
    "watch": "bridge.watch",
    "Record": "empirics.records",
    "Sweep": "empirics.sweep",
    "sweep": "empirics.sweep",
    "train": "empirics.train",
}

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Conversion",
    "Cosine",
    "Decay",
    "Group",
    "Hyperball",
    "InputError",
    "InverseSqrt",
    "Linear",
    "Lion",
    "Muon",
    "NormalizedMomentum",
    "Piecewise",
    "PrecisionFinding",
    "Prediction",
    "Probe",
    "Recipe",
    "Signum",
    "TensorProbe",
    "WarmupStableDecay",
    "advise",
    "citations",
    "convert",
    "convert_decay",
    "derive",
    "equilibrium",
    "equivalent_schedule",
    "precision_check",
    "predict",
    "shapes",
    "theory",
    "trajectory",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'decaylab' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        raise InputError(f"dl.{name} needs {error.name}: install decaylab with the 'train' extra.") from None
