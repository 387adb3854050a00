"""Optimizers as theory sees them: torch.optim's argument names, with the decay convention made explicit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from theory.errors import InputError, finite, require, whole
from theory.serialize import serializable, settle


class Decay(StrEnum):
    """How a step with zero gradient shrinks the weights (the factor is 1 - shrink).

    `COUPLED` adds lambda*w to the gradient (torch SGD, Adam); `DECOUPLED` shrinks by lr_t*lambda (torch AdamW);
    `INDEPENDENT` by s_t*lambda, s_t being the schedule's shape (Loshchilov & Hutter, arXiv 1711.05101);
    `CORRECTED` by lr_t**2*lambda/lr_max (Defazio, arXiv 2506.02285); `SCHEDULED` by lr_t*lambda_t with a curve of its
    own; `CAUTIOUS` only where the update and the weight agree in sign (arXiv 2510.12402).
    """

    COUPLED = "coupled"
    DECOUPLED = "decoupled"
    INDEPENDENT = "independent"
    CORRECTED = "corrected"
    CAUTIOUS = "cautious"
    SCHEDULED = "scheduled"
    NONE = "none"


def _settle_decoupled(optimizer: AdamW | Lion | Muon | _Momentum) -> None:
    settle(
        optimizer,
        lr=finite("lr", optimizer.lr),
        weight_decay=finite("weight_decay", optimizer.weight_decay),
    )
    allowed = [kind.value for kind in Decay if kind is not Decay.COUPLED]
    given = getattr(optimizer.decay, "value", optimizer.decay)
    require(optimizer.decay in allowed, "decay", given, f"one of {', '.join(allowed)}")
    settle(optimizer, decay=Decay(optimizer.decay))


def _betas(betas: tuple[float, float]) -> tuple[float, float]:
    require(isinstance(betas, (tuple, list)) and len(betas) == 2, "betas", betas, "a pair of numbers in [0, 1)")
    return (finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0))


@serializable
@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD: b <- momentum*b + (1-dampening)*(g + weight_decay*w); w <- w - lr*b (coupled decay)."""

    lr: float
    """Peak learning rate."""
    momentum: float = 0.0
    """Heavy-ball coefficient, in [0, 1)."""
    dampening: float = 0.0
    """Dampening of the momentum, in [0, 1]; ignored when momentum is 0, as in torch."""
    weight_decay: float = 0.0
    """Coefficient of the L2 term added to the gradient."""
    nesterov: bool = False
    """Nesterov momentum (needs momentum > 0 and no dampening)."""

    def __post_init__(self) -> None:
        settle(
            self,
            lr=finite("lr", self.lr),
            momentum=finite("momentum", self.momentum, high=1.0),
            dampening=finite("dampening", self.dampening, high=1.0, open_high=False),
            weight_decay=finite("weight_decay", self.weight_decay),
            nesterov=bool(self.nesterov),
        )
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise InputError(
                f"nesterov = True with momentum = {self.momentum} and dampening = {self.dampening} is not allowed: "
                "Nesterov momentum needs momentum > 0 and dampening = 0."
            )

    @property
    def decay(self) -> Decay:
        """The decay convention (also of a group that has its own coefficient when the optimizer's is 0)."""
        return Decay.COUPLED


@serializable
@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam: the decay term weight_decay*w enters both moments (coupled decay)."""

    lr: float
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the first and the second moment, each in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Coefficient of the L2 term added to the gradient."""

    def __post_init__(self) -> None:
        settle(
            self,
            lr=finite("lr", self.lr),
            betas=_betas(self.betas),
            eps=finite("eps", self.eps),
            weight_decay=finite("weight_decay", self.weight_decay),
        )

    @property
    def decay(self) -> Decay:
        """The decay convention (also of a group that has its own coefficient when the optimizer's is 0)."""
        return Decay.COUPLED


@serializable
@dataclass(frozen=True)
class AdamW:
    """torch.optim.AdamW: w <- (1-lr*weight_decay)*w, then the Adam step (decoupled decay unless stated otherwise)."""

    lr: float
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the first and the second moment, each in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 1e-2
    """Decay coefficient; torch's default is 0.01, not 0."""
    decay: Decay = Decay.DECOUPLED
    """Convention by which `weight_decay` and the schedule become a shrink factor."""

    def __post_init__(self) -> None:
        settle(self, betas=_betas(self.betas), eps=finite("eps", self.eps))
        _settle_decoupled(self)


@serializable
@dataclass(frozen=True)
class Lion:
    """u = sign(beta1*m + (1-beta1)*g), then m <- beta2*m + (1-beta2)*g; w <- (1-lr*weight_decay)*w - lr*u."""

    lr: float
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Share of the memory in the update, and decay rate of the memory, each in [0, 1)."""
    weight_decay: float = 0.0
    """Decay coefficient."""
    decay: Decay = Decay.DECOUPLED
    """Convention by which `weight_decay` and the schedule become a shrink factor."""

    def __post_init__(self) -> None:
        settle(self, betas=_betas(self.betas))
        _settle_decoupled(self)


@dataclass(frozen=True)
class _Momentum:
    """One momentum, decoupled decay."""

    lr: float
    """Peak learning rate."""
    momentum: float = 0.9
    """Decay rate of the memory, in [0, 1)."""
    weight_decay: float = 0.0
    """Decay coefficient."""
    decay: Decay = Decay.DECOUPLED
    """Convention by which `weight_decay` and the schedule become a shrink factor."""

    def __post_init__(self) -> None:
        settle(self, momentum=finite("momentum", self.momentum, high=1.0))
        _settle_decoupled(self)


@serializable
@dataclass(frozen=True)
class Signum(_Momentum):
    """m <- momentum*m + (1-momentum)*g; w <- (1-lr*weight_decay)*w - lr*sign(m)."""


@serializable
@dataclass(frozen=True)
class NormalizedMomentum(_Momentum):
    """m <- momentum*m + (1-momentum)*g; w <- (1-lr*weight_decay)*w - lr*m/||m||, tensor by tensor."""


@serializable
@dataclass(frozen=True)
class Muon:
    """torch.optim.Muon: orthogonalised momentum for matrices; the decay uses the raw lr, the step the adjusted one."""

    lr: float
    """Peak learning rate, before adjustment."""
    weight_decay: float = 0.1
    """Decay coefficient; torch's default."""
    momentum: float = 0.95
    """Decay rate of the memory, in [0, 1)."""
    nesterov: bool = True
    """Whether the present gradient is mixed in once more."""
    ns_steps: int | None = 5
    """Newton-Schulz iterations; None for the exact polar factor."""
    adjust_lr_fn: str | None = None
    """None or "original": lr*sqrt(max(1, rows/columns)); "match_rms_adamw": 0.2*lr*sqrt(max(rows, columns))."""
    decay: Decay = Decay.DECOUPLED
    """Convention by which `weight_decay` and the schedule become a shrink factor."""

    def __post_init__(self) -> None:
        known = (None, "original", "match_rms_adamw")
        require(self.adjust_lr_fn in known, "adjust_lr_fn", self.adjust_lr_fn, "None, 'original' or 'match_rms_adamw'")
        if self.ns_steps is not None:
            require(1 <= whole("ns_steps", self.ns_steps) <= 10, "ns_steps", self.ns_steps, "None or from 1 to 10")
        settle(self, momentum=finite("momentum", self.momentum, high=1.0), nesterov=bool(self.nesterov))
        _settle_decoupled(self)


@serializable
@dataclass(frozen=True)
class Hyperball:
    """Fixed norm: w <- ||w0|| * Normalize(w - lr*||w0||*m/||m||), tensor by tensor; there is nothing left to decay."""

    lr: float
    """Peak learning rate, relative to the norm."""
    momentum: float = 0.9
    """Decay rate of the memory, in [0, 1)."""

    def __post_init__(self) -> None:
        settle(self, lr=finite("lr", self.lr), momentum=finite("momentum", self.momentum, high=1.0))

    @property
    def decay(self) -> Decay:
        """The decay convention."""
        return Decay.NONE

    @property
    def weight_decay(self) -> float:
        """No decay: the projection holds the norm."""
        return 0.0


ScaleFree = Lion | Signum | NormalizedMomentum | Muon
"""Optimizers whose step does not depend on the size of the gradients."""
Optimizer = SGD | Adam | AdamW | Lion | Signum | NormalizedMomentum | Muon | Hyperball
