"""What should happen: every law by its name, analytic, without torch."""

from theory.equilibrium.adam_l2 import adam_l2_equilibrium
from theory.equilibrium.adamw import adamw_equilibrium
from theory.equilibrium.decoupled import (
    angle_from_relative_update,
    decoupled_equilibrium,
    normalized_momentum_equilibrium,
)
from theory.equilibrium.sgd import sgd_equilibrium
from theory.invariance import (
    angle_from_norms,
    effective_lr,
    invariance_defect,
    rescaled_hyperparameters,
    sgd_norm_step,
)
from theory.predict import predict
from theory.trajectory.adamw import adamw_trajectory
from theory.trajectory.sgd import sgd_trajectory

__all__ = [
    "adam_l2_equilibrium",
    "adamw_equilibrium",
    "adamw_trajectory",
    "angle_from_norms",
    "angle_from_relative_update",
    "decoupled_equilibrium",
    "effective_lr",
    "invariance_defect",
    "normalized_momentum_equilibrium",
    "predict",
    "rescaled_hyperparameters",
    "sgd_equilibrium",
    "sgd_norm_step",
    "sgd_trajectory",
]
