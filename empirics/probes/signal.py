"""Memory of gradients and updates over a window of training steps, streaming: what a calibrated prediction needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics.probes.blocks import BlockMeans
from empirics.probes.curvature import signs
from empirics.probes.products import dot, wide
from empirics.probes.rotation import Rates, read_rates
from empirics.tensors import TensorView, tensors
from theory.errors import InputError, whole


@dataclass(frozen=True)
class TensorSignal:
    """What a window says about one tensor; standard errors are over blocks of steps, lag k at index k."""

    c2: float
    """Mean of ||g||^2 ||w||^2."""
    c2_stderr: float
    """Its standard error."""
    update_sq: float
    """Mean of ||u||^2, where w' = (1 - lr*decay) w - lr u."""
    update_autocov: tuple[float, ...]
    """C_k, mean of <u_t, u_{t-k}>, k = 0 .. lags."""
    update_autocov_stderr: tuple[float, ...]
    """Their standard errors."""
    grad_autocov: tuple[float, ...]
    """Autocorrelation of ||w|| g without its part along w, in the frame that turns with w, k = 0 .. lags; 1 at 0."""
    grad_autocov_stderr: tuple[float, ...]
    """Their standard errors, that of the normalisation left out."""
    radial: float
    """Mean cosine of g and w."""
    radial_stderr: float
    """Its standard error."""
    steps: int
    """Steps with a gradient."""
    sketch_error: float
    """Error of a single inner product, relative to the norms, due to the random projection; 0 without one."""


class Signal:
    """Watch an optimizer: two removable hooks that change nothing about the training.

    The gradient of step s, v_s = ||w_s|| g_s without its part along w_s, is carried to step t by the rotation
    that turns w_s into w_t and moves nothing else: with e = w/||w||,

        <v_t, carried v_s> = <v_t, v_s> - <v_t, e_s><v_s, e_t>/(1 + <e_s, e_t>).

    Tensors of more than `sketch` elements are randomly projected (signs, then folding to `sketch` numbers: unbiased
    inner products; lag 0 stays exact), so that memory is a copy of the weights, one byte a weight for the signs and
    3 (lags + 1) sketches a tensor, whatever the number of steps.

    Args:
        model: The model whose tensors are measured.
        optimizer: Its optimizer; tensors that are not in it are left out.
        lags: Longest lag in steps; theory asks for min(5/(1-beta), steps/4).
        sketch: Numbers kept of a tensor and step.
        seed: Of the projection.

    Raises:
        InputError: If the optimizer holds no tensor of the model, or a number is not allowed.

    Example:
        >>> model = nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> signal = Signal(model, optimizer, lags=1)
        >>> for _ in range(3):
        ...     model.zero_grad()
        ...     model(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        >>> signal.close()
        >>> round(signal.result()["bias"].update_sq, 4)     # the gradient is 1, 1, 1, 1
        4.0
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, lags: int = 50, sketch: int = 4096, seed: int = 0
    ) -> None:
        lags, sketch = whole("lags", lags), whole("sketch", sketch, low=1)
        group = {p: i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        views = tuple(view for view in tensors(model) if view.parameter in group)
        if not views:
            raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's own.")
        whole("seed", seed)
        self._streams = [Stream(v, group[v.parameter], lags, sketch, seed + 7919 * i) for i, v in enumerate(views)]
        self._rates: list[Rates] = []
        self._handles = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    def result(self) -> dict[str, TensorSignal]:
        """What was measured so far, by tensor; tensors that never had a gradient are left out.

        Returns:
            Means and standard errors.
        """
        return {s.view.name: s.result() for s in self._streams if s.moments.rows}

    def forget(self) -> None:
        """Begin a new window: means start afresh, while the next steps still see those before them."""
        for stream in self._streams:
            stream.forget()

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on, not copied.

        Returns:
            Tensors and numbers by tensor.
        """
        return {stream.view.name: stream.state_dict() for stream in self._streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; one of other tensors, lags or sketches is ignored.

        Args:
            state: What it returned.
        """
        shapes = {name: tuple(each["kept"].shape) for name, each in state.items()}
        if shapes == {stream.view.name: tuple(stream.kept.shape) for stream in self._streams}:
            for stream in self._streams:
                stream.load_state_dict(state[stream.view.name])

    def close(self) -> None:
        """Remove the hooks from the optimizer; results can still be read."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._rates = [read_rates(optimizer, group) for group in optimizer.param_groups]
        for stream in self._streams:
            stream.before()

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for stream in self._streams:
            stream.after(*self._rates[stream.group][:2])


class Stream:
    """One tensor: its last sketches and its running means."""

    def __init__(self, view: TensorView, group: int, lags: int, sketch: int, seed: int) -> None:
        weights = view.view().reshape(-1)
        self.view, self.group, self.lags = view, group, lags
        self.dtype, device = wide(weights), weights.device
        self.width = weights.numel()
        self.signs: Tensor | None = None
        if self.width > sketch:
            source = torch.Generator().manual_seed(seed)
            folds = -(-self.width // sketch)
            self.signs = signs(torch.Size((folds, sketch)), source, dtype=torch.int8).to(device)
            self.width = sketch
        self.kept = torch.zeros(3, lags + 1, self.width, dtype=self.dtype, device=device)  # v, e, u; newest at 0
        self.valid = torch.zeros(lags + 1, dtype=torch.float64, device=device)
        self.old = torch.empty(0)
        self.forget()

    def forget(self) -> None:
        """Start the means afresh."""
        device, columns = self.kept.device, self.lags + 1
        self.moments, self.grads, self.updates = (BlockMeans(n, device) for n in (3, columns, columns))

    def state_dict(self) -> dict[str, Any]:
        """Last sketches and running means, between two steps."""
        means = {name: getattr(self, name).state_dict() for name in ("moments", "grads", "updates")}
        return {"kept": self.kept, "valid": self.valid} | means

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.kept.copy_(state["kept"])
        self.valid.copy_(state["valid"])
        for name in ("moments", "grads", "updates"):
            getattr(self, name).load_state_dict(state[name])

    def sketch(self, x: Tensor) -> Tensor:
        """Random projection of a vector to `width` numbers; the vector itself if it is short."""
        if self.signs is None:
            return x
        folds, width = self.signs.shape
        padded = torch.nn.functional.pad(x, (0, folds * width - x.numel())).view(folds, width)
        return (padded * self.signs).sum(0)

    def before(self) -> None:
        """Gradient and weights, before the step."""
        grad = self.view.parameter.grad
        self.kept = self.kept.roll(1, 1)
        self.valid = self.valid.roll(1)
        self.kept[:, 0], self.valid[0] = 0, 0
        self.old = torch.empty(0)
        if grad is None:
            return
        g = self.view.of(grad.to_dense() if grad.is_sparse else grad).reshape(-1).to(self.dtype)
        w = self.old = self.view.view().reshape(-1).to(self.dtype, copy=True)
        w2, g2, along = dot(w, w), dot(g, g), dot(w, g)
        norm = w2.sqrt()
        alive = norm > 0
        direction = torch.where(alive, w / norm.to(w.dtype), 0.0)
        inner = torch.where(alive, along / norm, 0.0)
        v = (g - inner.to(g.dtype) * direction) * norm.to(g.dtype)
        self.kept[0, 0], self.kept[1, 0] = self.sketch(v), self.sketch(direction)
        self.valid[0] = 1
        v, e = self.kept[:2].double()
        carried = v @ v[0] - (e @ v[0]) * (v @ e[0]) / (1 + e @ e[0]).clamp(min=1e-6)
        carried[0] = v2 = (g2 - inner.square()).clamp(min=0) * w2
        self.grads.add(carried * self.valid, self.valid.clone())
        cosine = torch.where(alive & (g2 > 0), inner / g2.sqrt(), 0.0)
        self.moments.add(torch.stack([g2 * w2, cosine, v2]), torch.ones(3, dtype=torch.float64, device=w.device))

    def after(self, lr: float | Tensor, shrink: float | Tensor) -> None:
        """The update, after the step; nothing if the learning rate is 0."""
        if self.old.numel() == 0 or float(lr) == 0:
            return
        u = (self.old * (1 - shrink) - self.view.view().reshape(-1).to(self.dtype)) / lr
        self.kept[2, 0] = self.sketch(u)
        recent = self.kept[2].double()
        products = recent @ recent[0]
        products[0] = dot(u, u)
        self.updates.add(products * self.valid, self.valid.clone())
        self.old = torch.empty(0)

    def result(self) -> TensorSignal:
        """Means and standard errors."""
        (c2, radial, v2), (c2_error, radial_error, _) = self.moments.mean().tolist(), self.moments.stderr().tolist()
        updates = self.updates.mean()
        return TensorSignal(
            c2=c2,
            c2_stderr=c2_error,
            update_sq=updates[0].item(),
            update_autocov=tuple(updates.tolist()),
            update_autocov_stderr=tuple(self.updates.stderr().tolist()),
            grad_autocov=tuple((self.grads.mean() / v2).tolist()),
            grad_autocov_stderr=tuple((self.grads.stderr() / v2).tolist()),
            radial=radial,
            radial_stderr=radial_error,
            steps=self.moments.rows,
            sketch_error=0.0 if self.signs is None else self.width**-0.5,
        )
