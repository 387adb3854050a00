"""What a derivation is: sentences and equations from the update rule to the formula, and the formula as a function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp
from sympy.core.alphabets import greeks

_GREEK = re.compile(rf"(?<![A-Za-z\\])({'|'.join(greeks)}|Delta|Sigma)(?![A-Za-z])")
_WORD = re.compile(r"(?<![A-Za-z\\{^])([A-Za-z]{3,})(?![A-Za-z])")


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
            parts += [f"\\[ {tex(equation)} \\]" for equation in step.equations]
        parts.append(f"Source: {self.source}.")
        return "\n\n".join(parts)

    def _repr_markdown_(self) -> str:
        parts = [f"### {self.law}", self.setting]
        for number, step in enumerate(self.steps, start=1):
            parts.append(f"**{number}.** {step.text}")
            parts += [f"$${tex(equation)}$$" for equation in step.equations]
        parts.append(f"Source: {self.source}.")
        return "\n\n".join(parts)

    def __str__(self) -> str:
        """The proof in plain text."""
        lines = [f"{self.law}: {self.setting}"]
        for number, step in enumerate(self.steps, start=1):
            lines.append(f"{number}. {step.text}")
            lines += [f"     {equation}" for equation in step.equations]
        return "\n".join([*lines, f"Source: {self.source}."])


def tex(expression: sp.Basic) -> str:
    r"""LaTeX of an expression whose symbols are named as one would write them by hand.

    sympy reads indices and powers out of names and misreads some (E[m^2]); here a name that is LaTeX stays as it is.

    Args:
        expression: An equation or expression.

    Returns:
        LaTeX source.

    Example:
        >>> tex(sp.Eq(sp.Symbol("E[m^2]"), sp.Symbol("beta_1'")))
        "E[m^2] = \\beta_1'"
    """
    return str(sp.latex(expression, symbol_names={symbol: _name(symbol.name) for symbol in _symbols(expression)}))


def _symbols(expression: sp.Basic) -> set[sp.Symbol]:
    return {atom for atom in expression.atoms(sp.Symbol) if len(atom.name) > 1}


def _name(name: str) -> str:
    if "\\" in name:
        return name
    name = name.replace("w*", "w^*").replace("cos", r"\cos") if name != "cos" else r"\cos"
    name = re.sub(r"_([A-Za-z]{2,})", lambda m: m[0] if m[1] in greeks else rf"_{{\mathrm{{{m[1]}}}}}", name)
    name = _GREEK.sub(r"\\\1", name)
    name = _WORD.sub(r"\\mathrm{\1}", name)
    return re.sub(r"^(.*\^[^']+)('+)$", r"{\1}\2", name)  # a prime is a superscript, too


def equilibrium_symbols() -> tuple[sp.Symbol, sp.Symbol]:
    """Learning rate and weight decay, the symbols of every equilibrium.

    Returns:
        eta and lambda, positive.

    Example:
        >>> equilibrium_symbols()
        (eta, lambda)
    """
    return sp.Symbol("eta", positive=True), sp.Symbol("lambda", positive=True)
