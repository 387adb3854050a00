"""Follow a proof's equations numerically: what they determine, and whether the rest of them agree."""

from collections.abc import Callable, Iterable, Mapping

import pytest
import sympy as sp
from sympy.core.function import AppliedUndef

from theory.derivations import Step

REST = 400  # terms kept of infinite sums and products; the tests' ratios of at most 0.95 leave 1e-9 of the first


def _plain(expression: sp.Basic) -> sp.Basic:
    return expression.xreplace({symbol: sp.Symbol(symbol.name) for symbol in expression.atoms(sp.Symbol)})


def _number(expression: sp.Expr) -> float:
    finite = expression.replace(
        lambda e: isinstance(e, (sp.Sum, sp.Product)) and e.limits[0][2] == sp.oo,
        lambda e: e.func(e.function, (*e.limits[0][:2], REST)),
    )
    return float(sp.lambdify([], finite, ["scipy", "numpy"])())


def _numeric(equation: sp.Basic) -> bool:
    scalar = isinstance(equation, sp.Equality) and not any(getattr(side, "is_Matrix", False) for side in equation.args)
    return scalar and not equation.has(sp.Order, sp.Derivative, sp.Limit)


def _present(side: sp.Expr, known: Mapping[sp.Symbol, sp.Expr], functions: Mapping[str, Callable]) -> sp.Expr:
    side = _plain(side).subs(known)
    for name, function in functions.items():
        side = side.replace(sp.Function(name), function)
    return side.xreplace({call: sp.Symbol(str(call)) for call in side.atoms(AppliedUndef)}).subs(known)


def _follow(
    steps: Iterable[Step], values: Mapping[str, float], functions: Mapping[str, Callable] | None = None
) -> tuple[dict[str, float], int]:
    known = {sp.Symbol(name): sp.sympify(value) for name, value in values.items()}
    waiting = [equation for step in steps for equation in step.equations if _numeric(equation)]
    tested = 0
    while waiting:
        left = []
        for equation in waiting:
            lhs, rhs = (_present(side, known, functions or {}) for side in equation.args)
            unknown = lhs.free_symbols | rhs.free_symbols
            if not unknown:
                assert _number(lhs) == pytest.approx(_number(rhs), rel=1e-9, abs=1e-12), equation
                tested += 1
            elif lhs in unknown and not rhs.free_symbols:
                known[lhs] = sp.Float(_number(rhs), 17)
            elif len(unknown) == 1 and (lhs - rhs).is_polynomial(*unknown) and sp.degree(lhs - rhs, *unknown) == 1:
                known[next(iter(unknown))] = sp.solve(lhs - rhs, *unknown)[0]
            else:
                left.append(equation)
        assert len(left) < len(waiting), f"nothing determines {left}"
        waiting = left
    return {str(symbol): float(value) for symbol, value in known.items()}, tested


@pytest.fixture(scope="session")
def plain() -> Callable[[sp.Basic], sp.Basic]:
    """The expression with its symbols told apart by name alone."""
    return _plain


@pytest.fixture(scope="session")
def walkable() -> Callable[[sp.Basic], bool]:
    """Whether `follow` walks an equation: a scalar one without expansions, limits and differential operators."""
    return _numeric


@pytest.fixture(scope="session")
def follow() -> Callable[..., tuple[dict[str, float], int]]:
    """Follow scalar equations of `steps` from `values` (by symbol name); `functions` stand for undefined functions.

    An equation with one unknown determines it if it is linear in it; one with none is a test, to 1e-9. Returns every
    value found, and how many equations were tests. Fails if an equation disagrees, or cannot be reached.
    """
    return _follow
