"""What a derivation is: sentences and equations from the update rule to the formula, and the formula as a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp


@dataclass(frozen=True)
class Step:
    """One step of a proof."""

    text: str
    """What is done, and why it may be done: one or two sentences, inline mathematics between dollar signs."""
    equations: tuple[sp.Basic, ...] = ()
    """What holds after it."""


@dataclass(frozen=True)
class Derivation:
    """A proof that sympy carried out: every equation is the outcome of the one before, none is typed in.

    In a notebook it shows itself; `latex()` gives the same for a document, `str()` for a terminal.
    """

    law: str
    """Name of the law in `theory`."""
    setting: str
    """Update rule and assumptions, a sentence or two."""
    steps: tuple[Step, ...]
    """From the update rule to the formula."""
    result: Mapping[str, sp.Expr]
    """The formula of each derived field of the law's result, by the field's name."""
    inputs: Mapping[str, sp.Symbol]
    """The symbol of each input that the formula contains, by the law's argument name."""
    source: str
    """Who found it."""

    def evaluate(self, **inputs: float) -> dict[str, float]:
        """Evaluate the derived formulas: what the law must return.

        Args:
            inputs: A value for each of `inputs`.

        Returns:
            The value of each field of `result`.

        Example:
            >>> from theory.derivations import derive
            >>> proof = derive("normalized_momentum_equilibrium")
            >>> round(proof.evaluate(lr=0.1, weight_decay=0.1, momentum=0.0)["norm"], 4)
            0.7089
        """
        names = list(self.inputs)
        functions = {
            field: sp.lambdify([self.inputs[name] for name in names], formula, ["scipy", "numpy"])
            for field, formula in self.result.items()
        }
        values = [inputs[name] for name in names]
        return {field: float(function(*values)) for field, function in functions.items()}

    def latex(self) -> str:
        """The proof as LaTeX, sentences and displayed equations in turn.

        Returns:
            LaTeX source for the body of a document (needs amsmath).
        """
        parts = [self.setting]
        for number, step in enumerate(self.steps, start=1):
            parts.append(f"\\textbf{{{number}.}} {step.text}")
            parts += [f"\\[ {sp.latex(equation)} \\]" for equation in step.equations]
        parts.append(f"Source: {self.source}.")
        return "\n\n".join(parts)

    def _repr_markdown_(self) -> str:
        parts = [f"### {self.law}", self.setting]
        for number, step in enumerate(self.steps, start=1):
            parts.append(f"**{number}.** {step.text}")
            parts += [f"$${sp.latex(equation)}$$" for equation in step.equations]
        parts.append(f"Source: {self.source}.")
        return "\n\n".join(parts)

    def __str__(self) -> str:
        """The proof in plain text."""
        lines = [f"{self.law}: {self.setting}"]
        for number, step in enumerate(self.steps, start=1):
            lines.append(f"{number}. {step.text}")
            lines += [f"     {equation}" for equation in step.equations]
        return "\n".join([*lines, f"Source: {self.source}."])


def equilibrium_symbols() -> tuple[sp.Symbol, sp.Symbol]:
    """Learning rate and weight decay, the symbols of every equilibrium.

    Returns:
        eta and lambda, positive.

    Example:
        >>> equilibrium_symbols()
        (eta, lambda)
    """
    return sp.Symbol("eta", positive=True), sp.Symbol("lambda", positive=True)
