"""Optimizers that torch lacks, whose step forgets the size of the gradients: Lion, Signum, normalised, fixed norm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def overflowed(optimizer: Optimizer) -> bool:
    """Whether the step that is being taken has to be left out: torch's GradScaler found values that are not finite.

    Args:
        optimizer: Inside its `step`, or a hook of it.

    Returns:
        False outside of a GradScaler.
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


class _Momentum(Optimizer):
    """w <- (1 - lr*weight_decay) w - lr*u, u made of one momentum buffer per parameter (decoupled decay)."""

    _step_supports_amp_scaling = True

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        super().__init__(params, {"decoupled_weight_decay": True, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Evaluates the loss again, as in torch.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if overflowed(self):
            return loss
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                    self._update(p, p.grad, state, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        update = self._direction(grad, state["momentum_buffer"], group)
        p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    @abstractmethod
    def _direction(self, grad: Tensor, buffer: Tensor, group: dict[str, Any]) -> Tensor:
        """Take the gradient into the buffer and return u."""


class Lion(_Momentum):
    """u = sign(beta1*m + (1-beta1)*g), then m <- beta2*m + (1-beta2)*g (Chen et al., arXiv 2302.06675).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        betas: (beta1, beta2).
        weight_decay: Decoupled decay coefficient.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> w.grad = torch.tensor([0.3, -5.0])
        >>> Lion([w], lr=0.5).step(); w.tolist()
        [0.5, 1.5]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def _direction(self, grad: Tensor, buffer: Tensor, group: dict[str, Any]) -> Tensor:
        beta1, beta2 = group["betas"]
        update = torch.lerp(grad, buffer, beta1).sign_()
        buffer.lerp_(grad, 1 - beta2)
        return update


class Signum(_Momentum):
    """m <- momentum*m + (1-momentum)*g, u = sign(m) (Bernstein et al., arXiv 1802.04434).

    Args:
        params: Parameters or groups.
        lr: Learning rate.
        momentum: Memory of m.
        weight_decay: Decoupled decay coefficient.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def _direction(self, grad: Tensor, buffer: Tensor, group: dict[str, Any]) -> Tensor:
        return buffer.lerp_(grad, 1 - group["momentum"]).sign()


class NormalizedMomentum(Signum):
    """As `Signum`, with u = m/||m||, tensor by tensor (zero where m is)."""

    def _direction(self, grad: Tensor, buffer: Tensor, group: dict[str, Any]) -> Tensor:
        return torch.nn.functional.normalize(
            buffer.lerp_(grad, 1 - group["momentum"]).flatten(), dim=0, eps=1e-30
        ).view_as(grad)


class Hyperball(NormalizedMomentum):
    """w <- ||w0|| Normalize(w - lr*||w0||*m/||m||): the norm of every tensor stays what it was at the first step.

    A tensor of zeros stays one.

    Args:
        params: Parameters or groups.
        lr: Learning rate relative to the norm.
        momentum: Memory of m.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, momentum: float = 0.9) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=0.0)

    def _update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        norm = state.setdefault("norm", torch.linalg.vector_norm(p))
        p.add_(self._direction(grad, state["momentum_buffer"], group) * norm, alpha=-group["lr"])
        p.mul_(norm / torch.linalg.vector_norm(p).clamp_min(torch.finfo(p.dtype).tiny))
