"""The original paper's figures beside ours: a table written by hand, its verdicts filled in from results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paper.manuscript_results import DEBIAN, SCALES, Result


@dataclass(frozen=True)
class Original:
    """A figure, or a group of figures, of the original paper."""

    shows: str
    """What it shows."""
    setup: str
    """With what."""
    ours: tuple[str, ...]
    """Figures of ours that repeat it."""
    differs: str
    """What differs at scale cpu."""


ORIGINALS = (
    Original(
        "Figure 1 of version 2: test error against the number of training images, with and without decay, at a fixed "
        "number of steps",
        "ResNet-18, subsets of CIFAR-5m",
        ("data_regimes",),
        "a one-block-a-stage BatchNorm ResNet of width 8; noisy digits up to 1,500 images, CIFAR-10 pooled to 16x16",
    ),
    Original(
        "Figure 1 of the code's README: test error for large and small learning rates with and without decay, the "
        "rate dropped at half time",
        "VGG-16 and ResNet-18 on CIFAR-10, pre-activation ResNet-34 on CIFAR-100; 1,000 epochs of plain SGD",
        ("overtraining_curves", "vgg_curves"),
        "noisy digits (1,000 images, 30 % random labels) and 4,000 CIFAR-10 images; 75 and 62 epochs; BatchNorm "
        "statistics recomputed exactly before every evaluation; the VGG has three convolutions",
    ),
    Original(
        "Figure 2 of the code's README: scale-invariant networks on the sphere, where decay is an effective learning "
        "rate",
        "scale-invariant ResNet-18 at fixed norm, three learning rates, fine-tuned at a tiny rate along the run",
        ("sphere",),
        "scale-invariant ResNet of width 8 on noisy digits; a decayed run beside runs of fixed norms that follow its "
        "effective rates tensor by tensor, or take their mean, a quarter or four times of it; no fine-tuning",
    ),
    Original(
        "Figure 3 of the code's README: along a run with decay the fine-tuned and the averaged iterate improve while "
        "the loss stays put",
        "ResNet-18 on CIFAR-10, lr 0.1, decay 0.015, fine-tuned at lr 1e-3 along the run",
        ("noise_driven_process", "jacobian_at_equal_loss"),
        "noisy digits; the runs go on from weights that have memorised the labels; fine-tuned from two epochs only; "
        "the Jacobian norm is the scale-invariant one; compared at equal training loss as well",
    ),
    Original(
        "Test error and Jacobian norm over a grid of learning rates and decays",
        "not in the code's README",
        ("overtraining_heatmap",),
        "a grid of 4 by 5 on noisy digits; rank correlation with lr*wd instead of reading a picture",
    ),
    Original(
        "Language model, cosine schedule: training and validation loss for several decays, and fine-tuned at a tiny "
        "rate",
        "GPT-2 124M, OpenWebText, context 256, 50,000 steps of lr 6e-4 falling to a tenth, decay 0, 0.1, 0.3",
        ("lm_decay_curves",),
        "a two-layer GPT-2 of width 32 and vocabulary 512 on Python sources; 4,000 steps; fresh losses, seeds paired "
        "on the order of the data",
    ),
    Original(
        "Language model, constant learning rate: decay costs loss, which a tiny rate wins back",
        "GPT-2 124M, OpenWebText, context 256, decay 0 to 0.6, fine-tuned at lr 1e-5 for 10,000 steps",
        ("lm_constant_lr",),
        "the same small model, 3,000 steps; the rate falls linearly to 0 in 400 steps instead of fine-tuning",
    ),
    Original(
        "Language model: effective learning rates matched without decay",
        "not in the code's README",
        ("lm_effective_lr",),
        "the same small model, matched per matrix and by one number, with a perturbed twin as the floor",
    ),
    Original(
        "Language model in bfloat16: late divergence without decay, none with it or in float32",
        "GPT-2 124M, OpenWebText, context 1024, bfloat16 autocast, decay 0, 0.1, 0.3",
        ("lm_low_precision",),
        "3 emulated mantissa bits (bfloat16 has 7) in every matrix product, attention logit, softmax and GELU of the "
        "small model; in exploratory runs bfloat16 itself did not diverge within minutes",
    ),
    Original(
        "Appendix: decay on all tensors, L2 inside Adam, SGD with momentum, a slower schedule",
        "GPT-2 124M, OpenWebText, context 256",
        ("lm_l2_and_coverage",),
        "the same small model, a panel and one coefficient each; the slower cosine ends at 0.16 of the peak instead of "
        "being cut",
    ),
)
"""In the original paper's order."""


def readme(found: Sequence[Result]) -> str:
    """paper/README.md.

    Args:
        found: From `collect`.

    Returns:
        Markdown.
    """
    unrepeated = " No figure is repeated in the original's set-up (scale paper)."
    unrepeated = "" if any(result.scale == "paper" for result in found) else unrepeated
    lines = [
        "# The paper",
        "",
        "`decaylab paper` writes this file and `generated/` from committed results, and compiles `main.pdf` where "
        f"LaTeX is installed (Debian: {', '.join(DEBIAN)}). `decaylab figure NAME --scale cpu` makes a figure and its "
        "checks; `decaylab figure list` shows the state of all.",
        "",
        "## The original's figures, and ours",
        "",
        'The original is D\'Angelo et al., "Why Do We Need Weight Decay in Modern Deep Learning?", arXiv 2310.04415. '
        "It numbers its figures differently in its versions, and its published code comes without the numbers it "
        "draws; where a figure has a number here, it is that of the version or README named. Verdicts are about the "
        f"claim at the scale named, by checks whose bounds were fixed before the runs.{unrepeated}",
        "",
        "| original | its set-up | ours: scale, verdict | what differs at scale cpu |",
        "|---|---|---|---|",
    ]
    for row in ORIGINALS:
        states = "<br>".join(state(name, found) for name in row.ours)
        lines.append(f"| {row.shows} | {row.setup} | {states} | {row.differs} |")
    shown = {name for row in ORIGINALS for name in row.ours}
    rest = dict.fromkeys(result.name for result in found if result.name not in shown)
    lines += ["", "## Figures of our own", "", "| figure: scale, verdict | claim |", "|---|---|"]
    for name in rest:
        statement = next(result.entry["statement"] for result in found if result.name == name)
        lines.append(f"| {state(name, found)} | {statement} |")
    return "\n".join(lines) + "\n"


def state(name: str, found: Sequence[Result]) -> str:
    """What became of a figure, for the table.

    Args:
        name: The figure.
        found: From `collect`.

    Returns:
        Markdown: a part for each scale at which it was made, with failed claims named.
    """
    parts = []
    for scale in SCALES:
        for result in (each for each in found if each.name == name and each.scale == scale):
            failed = [check["claim"] for check in result.checks if check["verdict"] == "fail"]
            words = {"pass": "holds", "fail": "**fails**"}.get(result.state, f"**{result.state}**")
            text = f"{scale}: {words}, {len(result.of('pass'))} of {len(result.checks)} checks"
            text += f"; fails: {'; '.join(failed)}" if failed else ""
            parts.append(text.replace("|", r"\|"))
    return f"`{name}`: {' / '.join(parts) or 'not run'}"
