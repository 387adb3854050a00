"""Low precision: what torch's own bfloat16 arithmetic does to decay, steps and sums."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import theory
from paper.laws.demonstration import Array, Demonstration, columns, mean_error, pair
from paper.laws.equilibrium import LR_WD

ULP = 2.0**-7
"""Spacing of bfloat16 numbers between 1 and 2."""


def bf16_scale_survival(seed: int) -> Demonstration:
    """Let torch multiply every bfloat16 number of a binade."""
    del seed
    x = np.array([0.5, 1.0, 1.1, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0]) * 2.0**-9
    mantissas = (1 + torch.arange(128) * ULP).bfloat16()
    law, rows = [theory.bf16_scale_survival(1 - float(lost)) for lost in x], []
    for lost in x:
        scaled = mantissas.clone().mul_(1 - float(lost))
        change = 1 - scaled.double() / mantissas.double()
        rows.append(((scaled != mantissas).double().mean().item(), change.mean().item() / float(lost)))
    changed, relative = columns(rows)
    return Demonstration(
        "bf16_scale_survival",
        "torch's p.mul_(1 − lr·wd) on all 128 bfloat16 numbers of a binade.",
        LR_WD,
        x,
        (
            pair(
                "share of weights that change",
                "share",
                [v.fraction_changed for v in law],
                changed,
                bar=1e-5,
                absolute=True,
            ),
            pair(
                "decay over nominal", "share", [v.mean_relative_change for v in law], relative, bar=1e-5, absolute=True
            ),
        ),
        log_x=True,
    )


def _rounded(s: float, drift: float, generator: torch.Generator, n: int) -> Tensor:
    """Grid points by which weights move: N(drift, s^2) in ulp added in float32 to weights on the grid, then rounded."""
    step = (torch.randn(n, generator=generator) * s + drift) * ULP
    return ((1.5 + step).bfloat16().float() - 1.5) / ULP


def rounding_diffusion(seed: int) -> Demonstration:
    """Mean square of rounded steps."""
    x, generator, rows = np.array([0.2, 0.25, 0.3, 0.5, 0.8, 1.5, 3.0]), torch.Generator().manual_seed(seed), []
    for s in x:
        batches = [
            _rounded(float(s), 0.0, generator, 1_000_000).square().mean().item() for _ in range(48 if s < 0.3 else 12)
        ]
        rows.append((theory.rounding_diffusion(float(s)).diffusion, *mean_error(batches)))
    law, seen, error = columns(rows)
    return Demonstration(
        "rounding_diffusion",
        "Normal steps added to bfloat16 weights and rounded by torch: mean square, 12 to 48 million steps.",
        "RMS step (ulp)",
        x,
        (pair("", "mean square of the rounded step (ulp²)", law, seen, error, bar=0.005),),
        log_x=True,
        log_y=True,
    )


def rounding_drift_gain(seed: int) -> Demonstration:
    """Share of a small drift that survives."""
    x, generator, rows = np.array([0.2, 0.25, 0.3, 0.4, 0.5, 0.7]), torch.Generator().manual_seed(seed), []
    for s in x:
        drift, values = 0.06 * float(s), []
        for _ in range(16 if s < 0.3 else 8):
            state = generator.get_state()
            up = _rounded(float(s), drift, generator, 1_000_000)
            generator.set_state(state)  # the same noise with the opposite drift: what is common cancels
            down = _rounded(float(s), -drift, generator, 1_000_000)
            values.append((up - down).mean().item() / (2 * drift))
        rows.append((theory.rounding_drift_gain(float(s)).gain, *mean_error(values)))
    law, seen, error = columns(rows)
    return Demonstration(
        "rounding_drift_gain",
        "Normal steps with a drift of 6 % of their size added to bfloat16 weights and rounded by torch: mean step over "
        "drift, 8 to 16 million pairs of opposite drifts.",
        "RMS step (ulp)",
        x,
        (pair("", "share of the drift that survives", law, seen, error, bar=0.02),),
        log_x=True,
    )


def bf16_walk(seed: int) -> Demonstration:
    """Weights in bfloat16 under noise and decay, with one rounding a step or two."""
    lr, decay, count, at, pairs = 1e-3, 1.0, 32_768, [400, 1000, 2000, 4000], []
    for name, fused in (("fused", True), ("not fused", False)):
        generator = torch.Generator().manual_seed(seed)
        w = (0.02 * torch.randn(count, generator=generator)).bfloat16()
        recent: list[tuple[Array, Array]] = []
        out = []
        for t in range(1, max(at) + 1):
            old, step = w, lr * torch.randn(count, generator=generator)
            if fused:
                w = ((1 - lr * decay) * w.float() - step).bfloat16()
            else:
                w = (w.clone().mul_(1 - lr * decay).float() - step).bfloat16()
            if any(stop - 200 < t <= stop for stop in at):  # groups of 2,048 weights, for the error
                groups = w.double().square().view(16, -1).mean(1).numpy()
                recent.append((groups, (w != old).double().view(16, -1).mean(1).numpy()))
            if t in at:
                square, square_error = mean_error(np.mean([r[0] for r in recent[-200:]], axis=0))
                moving, moving_error = mean_error(np.mean([r[1] for r in recent[-200:]], axis=0))
                rms = math.sqrt(square)
                out.append((rms, square_error / (2 * rms), moving, moving_error))
        rms, rms_error, moving, moving_error = columns(out)
        law = [theory.bf16_walk(lr, decay, steps, 0.02, fused) for steps in at]
        pairs.append(pair(name, "rms of the weights", [v.rms for v in law], rms, rms_error, bar=0.032))
        moves = [v.fraction_moving for v in law]
        pairs.append(pair(name, "share of weights moving", moves, moving, moving_error, bar=0.02))
    return Demonstration(
        "bf16_walk",
        "32,768 bfloat16 weights rounded by torch, lr 0.001, wd 1, normal steps, from rms 0.02: decay and step in "
        "float32 and one rounding (fused), or one after each (not fused).",
        "steps",
        np.array(at, dtype=float),
        tuple(pairs),
        log_x=True,
    )


def stochastic_rounding_equilibrium(seed: int) -> Demonstration:
    """torch.optim.AdamW whose weights are rounded at random to bfloat16 after every step."""
    lr, betas, count, x, rows = 1e-3, (0.9, 0.95), 65_536, np.array([1.0, 2.0, 5.0]), []
    for decay in x:
        law, generator = (
            theory.stochastic_rounding_equilibrium(lr, float(decay), betas),
            torch.Generator().manual_seed(seed),
        )
        rho = lr * float(decay)
        w = torch.nn.Parameter((law.rms * torch.randn(count, generator=generator)).bfloat16().float())
        exact = torch.nn.Parameter(w.detach().clone())
        optimizer = torch.optim.AdamW([w, exact], lr, betas, 0.0, float(decay))
        steps, window = int(2.0 / rho) + 300, 60
        squares, apart = torch.zeros(16), torch.zeros(16)
        for t in range(steps):
            w.grad = exact.grad = torch.randn(count, generator=generator)
            optimizer.step()
            noise = torch.randint(0, 2**16, (count,), dtype=torch.int32, generator=generator)
            w.data = ((w.data.view(torch.int32) + noise) & ~0xFFFF).view(torch.float32)
            if t >= steps - window:
                squares = squares + w.detach().double().square().view(16, -1).mean(1) / window
                apart = apart + (w.detach() - exact.detach()).double().square().view(16, -1).mean(1) / window
        settled = 1 - (1 - rho) ** (2 * steps - window)  # of rounding noise that has accumulated over so many steps
        square, error = mean_error(squares.numpy())
        share, share_error = mean_error((apart / settled).numpy())
        base = square - share * settled
        rows.append(
            (
                law.rms,
                math.sqrt(square),
                error / (2 * math.sqrt(square)),
                law.inflation**2 - 1,
                share / base,
                share_error / base,
            )
        )
    rms, seen, error, added, added_seen, added_error = columns(rows)
    return Demonstration(
        "stochastic_rounding_equilibrium",
        "torch.optim.AdamW, lr 0.001, betas (0.9, 0.95), on 65,536 weights rounded at random to bfloat16 after every "
        "step, beside the same run unrounded: what separates them is what rounding adds.",
        "wd",
        x,
        (
            pair("", "rms of one weight", rms, seen, error, bar=0.005),
            pair("", "variance added by rounding, relative", added, added_seen, added_error, bar=0.03),
        ),
        log_x=True,
        log_y=True,
        note="The bar of 0.5 % is the specification's for the rms; for the part that rounding adds, 0.2 to 3 % of it, "
        "3 % of itself is asked.",
    )


def residual_precision(seed: int) -> Demonstration:
    """Let torch add a bfloat16 branch to a bfloat16 stream."""
    x, generator, rows = 2.0 ** -np.arange(3, 11), torch.Generator().manual_seed(seed), []
    for ratio in x:
        values = []
        for _ in range(8):
            stream = torch.randn(500_000, generator=generator).bfloat16()
            branch = (float(ratio) * torch.randn(500_000, generator=generator)).bfloat16()
            lost = (stream + branch).double() - stream.double() - branch.double()
            values.append(math.sqrt(lost.square().mean() / branch.double().square().mean()))
        rows.append((theory.residual_precision(float(ratio)).relative_error, *mean_error(values)))
    law, seen, error = columns(rows)
    return Demonstration(
        "residual_precision",
        "torch's sum of two bfloat16 tensors, a normal stream of size 1 and a normal branch: RMS error over the "
        "branch, 4 million sums.",
        "branch over stream",
        x,
        (pair("", "relative error of the branch", law, seen, error, bar=0.03),),
        log_x=True,
        log_y=True,
    )


def coupled_l2_survival(seed: int) -> Demonstration:
    """Let torch add wd*w to bfloat16 gradients."""
    x, generator, rows = 2.0 ** -np.arange(5.0, 14.0), torch.Generator().manual_seed(seed), []
    for ratio in x:
        values = []
        for _ in range(8):
            g = torch.randn(1_000_000, generator=generator).bfloat16()
            w = torch.randn(1_000_000, generator=generator).bfloat16()
            # both signs of the decay term: the rounding of g's that cross no midpoint cancels
            change = g.add(w, alpha=float(ratio)).double() - g.add(w, alpha=-float(ratio)).double()
            term = 2 * float(ratio) * w.double()
            values.append(((change * term).sum() / term.square().sum()).item())
        rows.append((theory.coupled_l2_survival(float(ratio)).fraction, *mean_error(values)))
    law, seen, error = columns(rows)
    return Demonstration(
        "coupled_l2_survival",
        "torch's g.add(w, alpha=wd) in bfloat16 with normal g and w: regression of what was added on wd·w, 8 million "
        "sums.",
        "wd·rms(w)/rms(g)",
        x,
        (pair("", "share of the decay that survives", law, seen, error, bar=0.03),),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (
        bf16_scale_survival,
        bf16_walk,
        coupled_l2_survival,
        residual_precision,
        rounding_diffusion,
        rounding_drift_gain,
        stochastic_rounding_equilibrium,
    )
}
