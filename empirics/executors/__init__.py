"""Where a sweep's runs are trained: processes of this machine, torchrun, Ray or Slurm."""

from empirics.executors.choose import EXECUTORS, choose
from empirics.executors.job import Job
from empirics.executors.local import Local
from empirics.executors.protocol import Executor, Started
from empirics.executors.ray import Ray
from empirics.executors.slurm import Slurm
from empirics.executors.torchrun import Torchrun

__all__ = ["EXECUTORS", "Executor", "Job", "Local", "Ray", "Slurm", "Started", "Torchrun", "choose"]
