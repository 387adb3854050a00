"""Low-precision arithmetic emulated in float32: rounding, a context for training steps, weights kept in a format."""

from empirics.precision.arithmetic import Arithmetic, arithmetic
from empirics.precision.emulation import emulate
from empirics.precision.rounding import Rounding, round_to
from empirics.precision.weights import round_, round_weights

__all__ = ["Arithmetic", "Rounding", "arithmetic", "emulate", "round_", "round_to", "round_weights"]
