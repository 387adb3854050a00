"""How a run computes, as its configuration spells it: float32, bf16 autocast, or an emulated narrow format."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Generator

from empirics.precision.autocast import emulate_autocast
from empirics.precision.emulation import emulate
from empirics.precision.rounding import Rounding
from theory.errors import require

NAMED = ("auto", "float32", "bf16", "fp16", "bf16-weights", "bf16-weights:stochastic")
EMULATED = re.compile(r"emulated:m(\d+)e(\d+)(:autocast)?(?::(nearest|stochastic))?")
ALLOWED = (
    f"one of {', '.join(NAMED)}, or emulated:m<mantissa bits, 1 to 23>e<exponent bits, 2 to 8>, with :autocast "
    "after it to leave residual stream and normalisations in float32, and :stochastic for stochastic rounding, such as "
    "emulated:m7e8 (bf16) or emulated:m10e5:autocast:stochastic"
)


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of forward and backward pass.

    Example:
        >>> arithmetic("emulated:m10e5:nearest").name, arithmetic("auto").low
        ('emulated:m10e5', False)
    """

    name: str
    """As a configuration spells it; one spelling each."""
    autocast: bool = False
    """Whether the forward pass is in torch's autocast."""
    mantissa: int = 23
    """Explicit mantissa bits of the emulated format."""
    exponent: int = 8
    """Its exponent bits."""
    rounding: Rounding = "nearest"
    """How it rounds."""
    as_autocast: bool = False
    """Whether the emulated format is used where autocast would use it, instead of everywhere."""

    @property
    def dtype(self) -> torch.dtype:
        """Format of autocast."""
        return torch.float16 if self.name == "fp16" else torch.bfloat16

    @property
    def scaled(self) -> bool:
        """Whether the loss has to be scaled, since small gradients would leave the format."""
        return self.name == "fp16"

    @property
    def weights(self) -> bool:
        """Whether the weights themselves are kept in bf16."""
        return self.name.startswith("bf16-weights")

    @property
    def emulated(self) -> bool:
        """Whether a format is emulated."""
        return self.name.startswith("emulated:")

    @property
    def low(self) -> bool:
        """Whether it is below float32."""
        return self.autocast or (self.emulated and (self.mantissa, self.exponent) != (23, 8))

    def noise(self, seed: int, device: torch.device | str) -> Generator | None:
        """The source of stochastic rounding's noise; None where nothing is drawn.

        Args:
            seed: Its seed.
            device: That of the tensors.

        Returns:
            A generator apart from torch's global one.
        """
        return Generator(device).manual_seed(seed) if self.rounding == "stochastic" else None

    def rounded(self, noise: Generator | None = None) -> AbstractContextManager[Any]:
        """The context of forward and backward pass, to be entered for every step; does nothing without emulation.

        Args:
            noise: From `noise`.

        Returns:
            The context.
        """
        kind = emulate_autocast if self.as_autocast else emulate
        return kind(self.mantissa, self.exponent, self.rounding, noise) if self.emulated else nullcontext()


def arithmetic(precision: str, device: torch.device | str = "cpu") -> Arithmetic:
    """Read a configuration's precision.

    Args:
        precision: auto (bf16 on CUDA, float32 elsewhere), float32, bf16, fp16 (with a scaled loss),
            bf16-weights[:stochastic] (bf16, the weights too), or emulated:m<bits>e<bits>[:autocast][:stochastic].
        device: Where it runs.

    Returns:
        The arithmetic.

    Raises:
        InputError: If it is none of these; says what is allowed.

    Example:
        >>> found = arithmetic("emulated:m7e8:stochastic")
        >>> found.mantissa, found.exponent, found.rounding, found.low
        (7, 8, 'stochastic', True)
    """
    text = precision.replace("bf16-weights:nearest", "bf16-weights") if isinstance(precision, str) else ""
    match = EMULATED.fullmatch(text)
    bits = (int(match[1]), int(match[2])) if match else (1, 2)
    known = text in NAMED or (match is not None and 1 <= bits[0] <= 23 and 2 <= bits[1] <= 8)
    require(known, "precision", precision, ALLOWED)
    if match is None:
        auto = text == "auto" and torch.device(device).type == "cuda"
        kind: Rounding = "stochastic" if text.endswith(":stochastic") else "nearest"
        return Arithmetic(text, auto or text not in ("auto", "float32"), rounding=kind)
    rounding = cast(Rounding, match[4] or "nearest")
    name = f"emulated:m{bits[0]}e{bits[1]}{match[3] or ''}" + (":stochastic" if rounding == "stochastic" else "")
    return Arithmetic(name, False, *bits, rounding, match[3] is not None)
