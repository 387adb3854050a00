# pyright: reportPrivateImportUsage=false
"""Early signs of low-precision trouble in the forward pass: residual stream, attention logits, lost branches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from empirics.checkpoint import rng_state, set_rng_state
from empirics.probes.bill import Bill, Schedule
from empirics.probes.low_precision import branch_lost, logit_max, rms
from empirics.probes.products import wide
from empirics.probes.rotation import Measurement
from theory.errors import InputError, require, whole


class Activations:
    """Watch the forward pass of a transformer: removable hooks that change nothing about the training.

    Of the first forward pass with gradients in a measured step (with gradient accumulation: the first micro-batch):

    - `residual_rms` of each block: RMS of the residual stream after it, over batch, tokens and width.
    - `branch_ratio` of each branch, "<block>.attn" and "<block>.mlp": rms(f)/rms(x) of branch f and the stream x that
      it is added to.
    - `branch_lost`: RMS error of x + f computed in bfloat16, over rms(f): the fraction of f that is lost. x and f are
      rounded to bfloat16 first, so in a float32 model it is what bfloat16 would lose
      (`theory.residual_precision(ratio)` predicts it for Gaussians).
    - `attention_logit_max` of each block: the largest q.k * scale over batch, heads and causal pairs (padding masks
      are not known and not applied), from the q and k that the model computed, in float32 or better.

    All four are known for blocks that look like GPT-2's, this package's or Hugging Face's (children ln_1, attn, ln_2,
    mlp). Other modules can be given by name: they are taken to be residual blocks with tensors in and out, whose branch
    is out - in; `branch_lost` is left out if the stream is in a type below float32, where the sum is already rounded.

    Policy: sees the network as it trains (dropout and BatchNorm as they are), runs under no_grad outside autocast and
    any emulated precision, uses no random numbers, keeps no activation beyond its block. Hooks are attached for
    measured steps only; evaluation under no_grad is not measured, and copies of the model (deepcopy, pickle) carry
    inert hooks. With several processes, values are of this one's batch. A compiled model calls no hooks, and compiles
    anew when there are some: give it `sampled=True`, and `sample` the model as it was before it was compiled.

    Args:
        model: The model.
        optimizer: Its optimizer, whose steps are counted.
        every: Measure steps 0, every, 2*every, ..., or a schedule.
        start: Number of the next step (that of the checkpoint when resuming).
        sampled: Attach no hooks but within `sample`.
        blocks: Names of residual blocks, as `named_modules` spells them; None: all that look like GPT-2's.
        bill: Where the time is charged, as "activations".

    Raises:
        InputError: If there is no such block, or `every` or `start` is not a whole number.

    Source: attention logits and RMS as in Dehghani et al., arXiv 2302.05442, and Wortsman et al., arXiv 2309.14322.

    Example:
        >>> from empirics.models import GPT2Config
        >>> model = GPT2Config(vocab_size=64, block_size=8, n_layer=1, n_head=2, n_embd=16).build(seed=0)
        >>> optimizer = torch.optim.AdamW(model.parameters())
        >>> probe = Activations(model, optimizer, every=1)
        >>> model.loss(torch.arange(8)[None], torch.arange(8)[None]).backward()
        >>> optimizer.step()
        >>> ((step, values),) = probe.flush()
        >>> sorted(values), list(values["branch_lost"])
        (['attention_logit_max', 'branch_lost', 'branch_ratio', 'residual_rms'], \
['transformer.h.0.attn', 'transformer.h.0.mlp'])
        >>> probe.close()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int | Schedule = 50,
        start: int = 0,
        sampled: bool = False,
        blocks: Sequence[str] | None = None,
        bill: Bill | None = None,
    ) -> None:
        self.schedule, self.step = Schedule.of(every), whole("start", start)
        self.model, self.blocks, self.bill = model, find_blocks(model, blocks), bill or Bill()
        self._sampled, self._sampling = sampled, False
        self._stream: Tensor | None = None
        self._values: dict[tuple[str, str], Tensor] = {}
        self._pending: list[tuple[int, list[tuple[str, str]], Tensor]] = []
        self._unseen: list[int] = []
        self._hooks: list[RemovableHandle] = []
        self._counter = optimizer.register_step_post_hook(self._after_step)
        self._prepare()

    def flush(self) -> list[Measurement]:
        """Fetch what was measured since the last flush: the only time the probe waits for the device.

        Returns:
            Pairs (step, {quantity: {block or branch: value}}), in order. Warns of measured steps whose forward pass was
            not seen.
        """
        with self.bill.charge("activations"):
            pending, self._pending = self._pending, []
            unseen, self._unseen = self._unseen, []
            if unseen:
                reason = "a compiled model has to be sampled, and passes under no_grad do not count"
                warnings.warn(f"no forward pass of the blocks was seen at step {unseen[0]}: {reason}.", stacklevel=2)
            measured: list[Measurement] = []
            for keys, batch in groupby(pending, key=lambda measurement: measurement[1]):
                steps, _, values = zip(*batch, strict=True)
                for step, row in zip(steps, torch.stack(values).tolist(), strict=True):
                    quantities: dict[str, dict[str, float]] = {}
                    for (quantity, name), value in zip(keys, row, strict=True):
                        quantities.setdefault(quantity, {})[name] = value
                    measured.append((step, quantities))
            return measured

    def sample(self, forward: Callable[[], Any]) -> None:
        """Measure the present step, if it is due, on an extra forward pass: for compiled models.

        Buffers and the global random number generators are put back; no gradients are taken.

        Args:
            forward: Runs the uncompiled model on a batch; its result is ignored.
        """
        if not self.schedule.due(self.step):
            return
        with self.bill.charge("activations"), torch.no_grad():
            rng, buffers = rng_state(), [(buffer, buffer.clone()) for buffer in self.model.buffers()]
            self._detach()
            self._attach()
            self._sampling = True
            try:
                forward()
            finally:
                self._sampling = False
                self._detach()
                set_rng_state(rng)
                for buffer, before in buffers:
                    buffer.copy_(before)

    def close(self) -> None:
        """Remove every hook; what was measured can still be flushed."""
        self._counter.remove()
        self._detach()

    def _prepare(self) -> None:
        if not self._sampled and self.schedule.due(self.step):
            with self.bill.charge("activations"):
                self._attach()

    def _attach(self) -> None:
        for name, block in self.blocks.items():
            enter, leave = Hook(self, self._enter), Hook(self, self._leave, name)
            self._hooks.append(block.register_forward_pre_hook(enter, with_kwargs=True))
            if is_gpt2(block):
                parts = {part: block.get_submodule(part) for part in ("attn", "attn.c_attn", "ln_2", "mlp")}
                for part in ("attn", "mlp"):
                    added = Hook(self, self._added, f"{name}.{part}")
                    self._hooks.append(parts[part].register_forward_hook(added, with_kwargs=True))
                self._hooks.append(parts["ln_2"].register_forward_pre_hook(enter, with_kwargs=True))
                scored = Hook(self, self._scored, name, parts["attn"])
                self._hooks.append(parts["attn.c_attn"].register_forward_hook(scored, with_kwargs=True))
            self._hooks.append(block.register_forward_hook(leave, with_kwargs=True))

    def _detach(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks.clear()

    def _after_step(self, *_: Any) -> None:
        if self.schedule.due(self.step):
            with self.bill.charge("activations"):
                values, self._values = self._values, {}
                if values:
                    first = next(iter(values.values())).device
                    row = torch.stack([value.to(first, torch.float32) for value in values.values()])
                    self._pending.append((self.step, list(values), row))
                else:
                    self._unseen.append(self.step)
                self._detach()
        self.step += 1
        self._prepare()

    def listening(self) -> bool:
        """Whether a forward pass that runs now is one to measure."""
        return self._sampling or torch.is_grad_enabled()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The stream arrives: at the block, or at the second LayerNorm."""
        self._stream = first_tensor(args or tuple(kwargs.values()))

    def _added(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A branch is about to be added to the stream."""
        if self._stream is not None and ("branch_lost", name) not in self._values:
            branch = first_tensor(output)
            self._values["branch_ratio", name] = rms(branch) / rms(self._stream)
            self._values["branch_lost", name] = branch_lost(self._stream, branch)

    def _scored(self, name: str, attn: nn.Module, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Q, K and V are there."""
        if ("attention_logit_max", name) not in self._values:
            self._values["attention_logit_max", name] = logit_max(attn, first_tensor(output))

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        stream, self._stream = self._stream, None
        if ("residual_rms", name) not in self._values:
            after = first_tensor(output)
            self._values["residual_rms", name] = rms(after)
            if stream is None or is_gpt2(module) or stream.shape != after.shape:
                return
            if stream.dtype == after.dtype == wide(after):
                self._stream = stream
                self._added(name, module, args, kwargs, after - stream)
                self._stream = None


class Hook:
    """A forward hook of the probe: silent where nothing is to be measured, and in copies of the module."""

    def __init__(self, probe: Activations, call: Callable[..., None], *first: Any) -> None:
        self.probe, self.call, self.first = probe, call, first

    def __call__(self, module: nn.Module, *rest: Any) -> None:
        """Measure, outside of autocast, autograd and torch-function modes such as an emulated precision."""
        if torch.compiler.is_compiling() or not self.probe.listening():
            return
        device = next((p.device.type for p in module.parameters()), "cpu")
        with (
            self.probe.bill.charge("activations"),
            torch.no_grad(),
            torch._C.DisableTorchFunction(),
            torch.autocast(device, enabled=False),
        ):
            self.call(*self.first, module, *rest)

    def __reduce__(self) -> tuple[type[Silent], tuple[()]]:
        return Silent, ()


class Silent:
    """What becomes of a hook when its module is copied."""

    def __call__(self, *_: Any) -> None:
        """Do nothing."""


def find_blocks(model: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Module]:
    """Residual blocks by name.

    Args:
        model: Any module.
        names: Those wanted; None: every block that looks like GPT-2's.

    Returns:
        The modules, in order.

    Raises:
        InputError: If there is none, or a name is not a module's.
    """
    modules = dict(model.named_modules())
    if names is None:
        found = {name: module for name, module in modules.items() if is_gpt2(module)}
        if not found:
            raise InputError(
                f"model = {type(model).__name__} has no GPT-2 blocks: name its residual blocks in `blocks`."
            )
        return found
    for name in names:
        require(name in modules, "blocks", name, "names of modules of the model, as named_modules() spells them")
    require(len(names) > 0, "blocks", names, "at least one name")
    return {name: modules[name] for name in names}


def is_gpt2(block: nn.Module) -> bool:
    """Whether a module has the children of a GPT-2 block, with Q, K and V in one projection."""
    children = dict(block.named_children())
    return {"ln_1", "attn", "ln_2", "mlp"} <= set(children) and hasattr(children["attn"], "c_attn")


def first_tensor(output: Any) -> Tensor:
    """The first tensor of what a module takes or returns.

    Args:
        output: A tensor, or a tuple that begins with one.

    Returns:
        The tensor, detached.

    Raises:
        InputError: If there is none in front.
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        raise InputError(f"a block's first value is of type {type(first).__name__}: only tensors can be measured.")
    return first.detach()
