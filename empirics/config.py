"""The whole configuration of a training run: frozen, checked, hashed by content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from empirics import averages, grouping, optimizers
from empirics.data import ImageData, TextData
from empirics.models import GPT2Config, ResNetConfig, VGGConfig
from empirics.plan import Probes
from empirics.precision import Arithmetic, arithmetic
from theory.errors import finite, require, whole
from theory.optimizers import (
    SGD,
    Adam,
    AdamW,
    Hyperball,
    Lion,
    Muon,
    NormalizedMomentum,
    Signum,
)
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Schedule
from theory.serialize import content_hash, serializable, to_dict


@serializable
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Example:
        >>> config = TrainConfig(
        ...     name="digits", model=ResNetConfig(), data=ImageData(), optimizer=SGD(lr=0.3), steps=310, batch_size=32
        ... )
        >>> config.directory.startswith("digits-")
        True
    """

    name: str
    """Name of the run: the first part of its directory's name."""
    model: GPT2Config | ResNetConfig | VGGConfig
    """The network."""
    data: TextData | ImageData
    """What it is trained on."""
    optimizer: SGD | Adam | AdamW | Lion | Signum | NormalizedMomentum | Muon | Hyperball
    """Optimizer with its peak learning rate and weight decay."""
    others: AdamW | None = None
    """With Muon, the optimizer of what is no hidden matrix; its learning rate has the same shape."""
    schedule: Schedule = field(default_factory=Constant)
    """Shape of the learning rate."""
    weight_decay_schedule: Schedule | None = None
    """Shape of the decay coefficient, for the scheduled convention."""
    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Windows or images a step."""
    accumulate: int = 1
    """Micro-batches of a step, one after the other; divides batch_size. BatchNorm sees one micro-batch at a time."""
    grad_clip: float = 0.0
    """Largest total gradient norm; 0: no clipping."""
    decay: str = "matrices"
    """Which tensors decay: matrices (those with two or more dimensions: nanoGPT's rule), all, names:A,B (exactly these
    parameters) or regex:PATTERN (searched for in the names)."""
    seed: int = 0
    """Seed of the initialisation and of dropout."""
    precision: str = "auto"
    """Arithmetic of forward and backward pass, weights stay float32: float32, bf16 (autocast), fp16 (autocast, the loss
    scaled by GradScaler), or an emulated format, emulated:m7e8 with 7 mantissa and 8 exponent bits,
    emulated:m7e8:stochastic with stochastic rounding. auto: bf16 on CUDA, float32 elsewhere. bf16-weights and
    bf16-weights:stochastic: bf16, and the weights, too, are rounded to bf16 after every step."""
    tf32: bool | None = None
    """Whether float32 products may use TF32 on CUDA; None: torch's defaults (convolutions may, matrices may not)."""
    averages: tuple[str, ...] = ()
    """Averages of the weights that are evaluated besides them: ema:<half-life in steps>, swa:<first step>."""
    init_from: str = ""
    """Run directory (below the same folder, or a path) whose last checkpoint, or RUN@STEP, gives the first weights."""
    fixed_norm: float | str = 0.0
    """Norm to which every tensor with two or more dimensions is projected after each step; initial: each its own at
    the start; 0: none."""
    match: str = ""
    """Run directory whose recorded effective learning rates the tensors with two or more dimensions follow."""
    match_by: str = "tensor"
    """tensor: each its own rate; mean: each its own mean over the whole run; global: one factor on the learning rate,
    the geometric mean over tensors."""
    match_factor: float = 1.0
    """Multiplies the matched rates."""
    twin: str = ""
    """Run directory of which this is the twin: without decay, on the rates that give the same directions."""
    twin_of: str = "invariant"
    """Which decayed matrices are trained so: those found scale-invariant (exact), or all (matrices)."""
    compile: bool | None = None
    """Whether to use torch.compile; None: on CUDA only, and not under an emulated precision."""
    threads: int = 1
    """CPU threads."""
    rotation_every: int = 10
    """Norms and angles are measured every so many steps; 0: never."""
    loss_every: int = 1
    """The loss is recorded every so many steps."""
    flush_every: int = 50
    """Measurements are fetched from the device and written every so many steps."""
    eval_every: int = 0
    """Evaluate every so many steps; 0: only at the end."""
    checkpoint_every: int = 500
    """Save a checkpoint every so many steps; 0: only at the end."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep."""
    keep_every: int = 0
    """Keep those after every so many steps for good, besides; 0: none. No part of the hash."""
    ends_on: tuple[str, ...] = ()
    """What ends the run as diverged besides values that are not finite: spike, drift. They are recorded in any case."""
    probes: Probes = field(default_factory=Probes)
    """What else is measured, and when; changes neither the training nor the hash."""

    def __post_init__(self) -> None:
        name = isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", self.name)
        require(bool(name), "name", self.name, "letters, digits and . _ = + -, beginning with a letter or digit")
        for key, kinds in KINDS.items():
            names = ", ".join(kind.__name__ for kind in kinds)
            require(isinstance(getattr(self, key), kinds), key, getattr(self, key), f"one of {names}")
        for key, low in COUNTS.items():
            object.__setattr__(self, key, whole(key, getattr(self, key), low=low))
        object.__setattr__(self, "grad_clip", finite("grad_clip", self.grad_clip))
        object.__setattr__(self, "decay", grouping.spelled(self.decay))
        found = arithmetic(self.precision)
        object.__setattr__(self, "precision", found.name)
        require(self.compile in (None, True, False), "compile", self.compile, "true, false or None")
        require(not (found.emulated and self.compile), "compile", self.compile, "false under an emulated precision")
        self._check_optimizer()
        self._check_data()
        self._check_extras()
        self._check_probes()

    def _check_optimizer(self) -> None:
        both = isinstance(self.optimizer, Muon) and isinstance(self.others, AdamW)
        require(self.others is None or both, "others", self.others, "None, or an AdamW beside Muon")
        for each, own in ((self.optimizer, self.weight_decay_schedule), (self.others, None)):
            if each is not None:
                optimizers.check(each)
                Recipe(each, self.schedule, self.steps, (Group("any", (1,)),), own)  # its checks are this run's, too
        fits = self.batch_size % self.accumulate == 0
        require(fits, "accumulate", self.accumulate, f"a divisor of batch_size = {self.batch_size}")

    def _check_data(self) -> None:
        model, data = self.model, self.data
        if isinstance(model, GPT2Config):
            require(isinstance(data, TextData), "data", data, "TextData for a language model")
        else:
            kind = type(model).__name__.removesuffix("Config")
            require(isinstance(data, ImageData), "data", data, f"ImageData for a {kind}")
        if isinstance(model, GPT2Config) and isinstance(data, TextData):
            size, vocabulary = data.block_size, data.vocab_size
            allowed = f"at most model.block_size = {model.block_size}"
            require(size <= model.block_size, "data.block_size", size, allowed)
            allowed = f"at most model.vocab_size = {model.vocab_size}"
            require(vocabulary <= model.vocab_size, "data.vocab_size", vocabulary, allowed)

    def _check_extras(self) -> None:
        object.__setattr__(self, "averages", averages.spelled(self.averages, self.steps))
        require(self.tf32 in (None, True, False), "tf32", self.tf32, "true, false or None")
        for key in ("init_from", "match", "twin"):
            require(isinstance(getattr(self, key), str), key, getattr(self, key), "a run directory, or empty")
        if self.fixed_norm != "initial":
            object.__setattr__(self, "fixed_norm", finite("fixed_norm", self.fixed_norm))
        by = ("tensor", "mean", "global")
        require(self.match_by in by, "match_by", self.match_by, f"one of {', '.join(by)}")
        object.__setattr__(self, "match_factor", finite("match_factor", self.match_factor))
        require(self.twin_of in ("invariant", "matrices"), "twin_of", self.twin_of, "invariant or matrices")
        alone = not self.twin or not (self.match or self.fixed_norm or self.others)
        require(alone, "twin", self.twin, "empty beside match, fixed_norm or others")
        require(not (self.match and self.others), "match", self.match, "empty beside others")

    def _check_probes(self) -> None:
        ends = (self.ends_on,) if isinstance(self.ends_on, str) else tuple(self.ends_on)
        require(set(ends) <= set(ENDS), "ends_on", self.ends_on, f"any of {', '.join(ENDS)}")
        object.__setattr__(self, "ends_on", tuple(kind for kind in ENDS if kind in ends))
        require(isinstance(self.probes, Probes), "probes", self.probes, "a Probes")
        given = self.probes.activations
        possible = isinstance(self.model, GPT2Config) or given in ("auto", 0)
        kind = type(self.model).__name__.removesuffix("Config")
        require(possible, "probes.activations", given, f"auto or 0 for a {kind}, which has no such blocks")

    def arithmetic(self, device: Any = "cpu") -> Arithmetic:
        """What `precision` means on a device."""
        return arithmetic(self.precision, device)

    def compiled(self, device_type: str) -> bool:
        """Whether the model is compiled on a type of device."""
        return (
            bool(self.compile) if self.compile is not None else device_type == "cuda" and not self.arithmetic().emulated
        )

    @property
    def micro_batch(self) -> int:
        """Windows or images a pass."""
        return self.batch_size // self.accumulate

    @property
    def predictable(self) -> bool:
        """Whether the laws are about this run: not where its norms or learning rates come from elsewhere."""
        return not (self.fixed_norm or self.match or self.twin)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that decide the training: not `FREE` ones; those that came later, `LATER`, only where set."""
        tree = to_dict(self)
        tree["data"] = {key: x for key, x in tree["data"].items() if (key, x) not in LATER_DATA}
        unset = {f.name: to_dict(f.default) for f in fields(self) if f.name in LATER}
        return {key: x for key, x in tree.items() if key not in FREE and not (key in unset and x == unset[key])}

    @property
    def hash(self) -> str:
        """SHA-256 of what decides the training."""
        return content_hash(self.identity)

    @property
    def directory(self) -> str:
        """Name of the run directory, <name>-<hash8>."""
        return f"{self.name}-{self.hash[:8]}"


FREE = ("probes", "keep_every")
LATER = (
    "ends_on",
    "others",
    "weight_decay_schedule",
    "accumulate",
    "tf32",
    "averages",
    "init_from",
    "fixed_norm",
    "match",
    "match_by",
    "match_factor",
    "twin",
    "twin_of",
)
LATER_DATA = (("replacement", False),)
"""Fields of the data that came later, with the values at which they are left out."""
KINDS = {
    "model": (GPT2Config, ResNetConfig, VGGConfig),
    "data": (TextData, ImageData),
    "optimizer": (SGD, Adam, AdamW, Lion, Signum, NormalizedMomentum, Muon, Hyperball),
    "schedule": (Constant,),
}
ENDS = ("spike", "drift")
COUNTS = {
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "seed": 0,
    "threads": 1,
    "rotation_every": 0,
    "loss_every": 1,
    "flush_every": 1,
    "eval_every": 0,
    "checkpoint_every": 0,
    "keep_checkpoints": 1,
    "keep_every": 0,
}
