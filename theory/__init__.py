from theory.equilibrium.adam_l2 import adam_l2_equilibrium
from theory.equilibrium.adamw import adamw_equilibrium
from theory.equilibrium.decoupled import angle_from_relative_update, decoupled_equilibrium, normalized_momentum_equilibrium
from theory.equilibrium.sgd import sgd_equilibrium
from theory.invariance import *
from theory.trajectory.adamw import adamw_trajectory
from theory.trajectory.sgd import sgd_trajectory
