"""Hessian and Gauss-Newton matrix of a loss: trace and largest eigenvalues."""

from empirics.probes.hessian_top import TopEigenvalues, hessian_top
from empirics.probes.hessian_trace import Estimate, hessian_trace
from empirics.probes.losses import CrossEntropy, SquaredError

__all__ = ["CrossEntropy", "Estimate", "SquaredError", "TopEigenvalues", "hessian_top", "hessian_trace"]
