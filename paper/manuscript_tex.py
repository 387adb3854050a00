"""LaTeX from plain text and numbers, in ASCII, so that any LaTeX of the last twenty years reads it."""

from __future__ import annotations

import math
import re

_TEXT = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "∝": r"$\propto$",
    "→": r"$\to$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "‖": r"$\|$",
    "²": "$^2$",
    "³": "$^3$",
    "½": r"$\frac12$",
    "′": "$'$",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "é": r"\'e",
    "á": r"\'a",
    "ö": r"\"o",
    "ü": r"\"u",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "η": r"$\eta$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "φ": r"$\varphi$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
}
_SIGNS = {"<=": r"\le", ">=": r"\ge"}


def escape(text: str) -> str:
    r"""Plain text as LaTeX.

    Args:
        text: Any text.

    Returns:
        LaTeX source; what has no known form in LaTeX stays as it is.

    Example:
        >>> print(escape("lr·wd ≤ 5 % of my_law"))
        lr$\cdot$wd $\le$ 5 \% of my\_law
    """
    return "".join(_TEXT.get(letter, letter) for letter in text)


def code(text: str) -> str:
    r"""A name or a command in typewriter letters, which may be broken behind underscores, slashes and blanks.

    Args:
        text: The name.

    Returns:
        LaTeX source.

    Example:
        >>> print(code("end_of_run"))
        \texttt{end\_\allowbreak{}of\_\allowbreak{}run}
    """
    inner = re.sub(r"(\\_|/|=)", r"\1\\allowbreak{}", escape(text)).replace("--", "-{}-")
    return rf"\texttt{{{inner}}}"


def number(value: float | str | None, digits: int = 3) -> str:
    r"""A number as it is printed everywhere in the paper.

    Args:
        value: The number, also as text; None or nan if there is none.
        digits: Significant digits.

    Returns:
        LaTeX source in mathematics; a dash if there is none.

    Example:
        >>> number(-0.01714), number(1e-9), number(None), number(4)
        ('$-0.0171$', '$10^{-9}$', '--', '$4$')
    """
    if value is None or value == "" or math.isnan(float(value)):
        return "--"
    if math.isinf(float(value)):
        return r"$\infty$" if float(value) > 0 else r"$-\infty$"
    text = f"{float(value):.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        power = f"10^{{{int(exponent)}}}"
        text = power if mantissa == "1" else rf"{mantissa}\cdot {power}"
    return f"${text}$"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval.

    Args:
        low: Lower end.
        high: Upper end.
        digits: Significant digits.

    Returns:
        LaTeX source; empty if an end is missing.

    Example:
        >>> interval(0.01, 0.02)
        '[$0.01$, $0.02$]'
    """
    if low is None or high is None:
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def bound(relation: str, value: float | str) -> str:
    r"""A bound.

    Args:
        relation: "<=" or ">=".
        value: The bound.

    Returns:
        LaTeX source.

    Example:
        >>> print(bound("<=", 0.05))
        $\le 0.05$
    """
    return f"${_SIGNS[relation]} {number(value).strip('$')}$"


def sentence(text: str) -> str:
    """Text with exactly one full stop at its end.

    Args:
        text: A sentence, with or without.

    Returns:
        The sentence.

    Example:
        >>> sentence("so it is"), sentence("so it is.")
        ('so it is.', 'so it is.')
    """
    return text.strip().rstrip(".") + "."
