"""What should happen: every law by its name, analytic, without torch."""

from theory.conventions import convert_decay
from theory.convert import convert
from theory.departures.adamw_drift import adamw_drift_corrected_angle
from theory.departures.drift import drift_corrected_angle
from theory.departures.finite_eps import finite_eps, finite_eps_equilibrium
from theory.departures.radial_gradient import radial_gradient
from theory.departures.undecayed import undecayed_angle
from theory.departures.variance_ratio import update_variance_ratio
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
from theory.equivalence.adamw import adamw_exponential_lr
from theory.equivalence.lion import lion_exponential_lr, lion_exponential_schedule
from theory.equivalence.sgd import sgd_exponential_lr, sgd_exponential_schedule
from theory.equivalence.twin import equivalent_schedule
from theory.invariance import (
    angle_from_norms,
    effective_lr,
    invariance_defect,
    rescaled_hyperparameters,
    sgd_norm_step,
)
from theory.onepass.least_squares import bias_variance, least_squares_stationary, least_squares_trajectory
from theory.overtraining.edge_of_stability import eos_period, sphere_eos, time_to_eos
from theory.overtraining.label_noise import label_noise_balance, label_noise_excess, noise_regulariser
from theory.precision.residual import residual_precision
from theory.precision.rounding import rounding_diffusion, rounding_drift_gain
from theory.precision.stochastic import stochastic_rounding_equilibrium
from theory.precision.survival import bf16_scale_survival, coupled_l2_survival
from theory.precision.walk import bf16_walk
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
    "adamw_drift_corrected_angle",
    "adamw_equilibrium",
    "adamw_equilibrium_gaussian",
    "adamw_exponential_lr",
    "adamw_signal_noise",
    "adamw_trajectory",
    "angle_from_norms",
    "angle_from_relative_update",
    "arcsine",
    "bf16_scale_survival",
    "bf16_walk",
    "bias_variance",
    "cautious_equilibrium",
    "closed_form_norm",
    "convert",
    "convert_decay",
    "correlated_equilibrium",
    "coupled_l2_survival",
    "decay_convention_norm",
    "decoupled_equilibrium",
    "direction_autocorrelation",
    "drift_corrected_angle",
    "effective_lr",
    "ema_weights",
    "eos_period",
    "equivalent_schedule",
    "finite_eps",
    "finite_eps_equilibrium",
    "gradient_rise",
    "hyperball_angle",
    "invariance_defect",
    "label_noise_balance",
    "label_noise_excess",
    "least_squares_stationary",
    "least_squares_trajectory",
    "lion_equilibrium",
    "lion_exponential_lr",
    "lion_exponential_schedule",
    "matrix_arcsine",
    "muon_equilibrium",
    "noise_regulariser",
    "normalized_momentum_equilibrium",
    "predict",
    "radial_gradient",
    "relaxation_time",
    "rescaled_hyperparameters",
    "residual_precision",
    "rounding_diffusion",
    "rounding_drift_gain",
    "sgd_equilibrium",
    "sgd_exponential_lr",
    "sgd_exponential_schedule",
    "sgd_norm_step",
    "sgd_trajectory",
    "signum_equilibrium",
    "sphere_eos",
    "stochastic_rounding_equilibrium",
    "time_to_eos",
    "timescale",
    "transfer",
    "undecayed_angle",
    "update_variance_ratio",
]
