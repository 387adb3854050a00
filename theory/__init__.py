"""What should happen: every law by its name, analytic, without torch."""

from theory.equilibrium.adam_l2 import adam_l2_equilibrium
from theory.equilibrium.adamw import adamw_equilibrium
from theory.equilibrium.adamw_gaussian import adamw_equilibrium_gaussian
from theory.equilibrium.cautious import cautious_equilibrium
from theory.equilibrium.correlated import correlated_equilibrium
from theory.equilibrium.decoupled import (
    angle_from_relative_update,
    decoupled_equilibrium,
    normalized_momentum_equilibrium,
)
from theory.equilibrium.hyperball import hyperball_angle
from theory.equilibrium.muon import matrix_arcsine, muon_equilibrium
from theory.equilibrium.sgd import sgd_equilibrium
from theory.equilibrium.sign import arcsine, lion_equilibrium, signum_equilibrium
from theory.equilibrium.signal import adamw_signal_noise
from theory.invariance import (
    angle_from_norms,
    effective_lr,
    invariance_defect,
    rescaled_hyperparameters,
    sgd_norm_step,
)
from theory.predict import predict
from theory.timescale import direction_autocorrelation, ema_weights, timescale
from theory.trajectory.adamw import adamw_trajectory
from theory.trajectory.closed_form import closed_form_norm
from theory.trajectory.conventions import decay_convention_norm
from theory.trajectory.gradient_rise import gradient_rise
from theory.trajectory.relaxation import relaxation_time
from theory.trajectory.sgd import sgd_trajectory
from theory.transfer import transfer

__all__ = [
    "adam_l2_equilibrium",
    "adamw_equilibrium",
    "adamw_equilibrium_gaussian",
    "adamw_signal_noise",
    "adamw_trajectory",
    "angle_from_norms",
    "angle_from_relative_update",
    "arcsine",
    "cautious_equilibrium",
    "closed_form_norm",
    "correlated_equilibrium",
    "decay_convention_norm",
    "decoupled_equilibrium",
    "direction_autocorrelation",
    "effective_lr",
    "ema_weights",
    "gradient_rise",
    "hyperball_angle",
    "invariance_defect",
    "lion_equilibrium",
    "matrix_arcsine",
    "muon_equilibrium",
    "normalized_momentum_equilibrium",
    "predict",
    "relaxation_time",
    "rescaled_hyperparameters",
    "sgd_equilibrium",
    "sgd_norm_step",
    "sgd_trajectory",
    "signum_equilibrium",
    "timescale",
    "transfer",
]
