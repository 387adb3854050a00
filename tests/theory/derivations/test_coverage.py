"""No law without a proof or a reason, no equation unchecked, and every proof prints: quickly, and as correct LaTeX."""

import re
import subprocess
import sys

import pytest
from sympy.logic.boolalg import BooleanAtom

import theory
from theory.derivations import DERIVED, derive

UNDERIVED = {
    "bf16_walk": "a Markov chain on the grid of bfloat16, applied numerically: it has no formula",
    "convert": "applies convert_decay, which is derived, at every step of a recipe",
    "equivalent_schedule": "chooses among the exponential twins, each with a proof of its own",
    "muon_equilibrium": "a numerical sum over modes of decoupled_equilibrium and matrix_arcsine, which are derived; "
    "test_overtraining_steps puts both proofs together",
    "predict": "runs the laws tensor by tensor",
    "update_variance_ratio": "reads one number off an equilibrium law, each of which is derived",
}
"""Public laws without a derivation, and why none exists."""

ELSEWHERE = {  # equations that are no scalar ones to be walked: (law, step) and the test that checks them
    ("adamw_equilibrium", 1): "test_expansions_leave_out_the_third_order",
    ("adamw_signal_noise", 3): "test_expansions_leave_out_the_third_order",
    ("arcsine", 3): "test_price_theorem_steps",
    ("closed_form_norm", 2): "test_slow_changes_are_derivatives",
    ("closed_form_norm", 4): "test_solutions_obey_their_equation",
    ("decay_convention_norm", 2): "test_slow_changes_are_derivatives",
    ("decay_convention_norm", 4): "test_conventions_obey_their_equation",
    ("decay_convention_norm", 5): "test_conventions_obey_their_equation",
    ("decay_convention_norm", 7): "test_conventions_obey_their_equation",
    ("direction_autocorrelation", 6): "test_equal_roots_are_a_limit",
    ("effective_lr", 1): "test_plane_of_an_update",
    ("eos_period", 3): "test_linear_cycles",
    ("invariance_defect", 1): "test_scale_invariance_on_a_concrete_function",
    ("invariance_defect", 2): "test_scale_invariance_on_a_concrete_function",
    ("invariance_defect", 3): "test_scale_invariance_on_a_concrete_function",
    ("relaxation_time", 3): "test_relaxation_of_sgd",
    ("sgd_norm_step", 1): "test_plane_of_an_update",
    ("sphere_eos", 1): "test_printed_step_in_the_plane",
}


# the steps and formulas of departures from the ideal setting are checked with those laws
HERE = [law for law in DERIVED if not getattr(theory, law).__module__.startswith("theory.departures.")]


def test_every_law_is_derived_or_says_why_not():
    laws = set(theory.__all__)
    assert laws - set(DERIVED) == set(UNDERIVED), "derive the law, or say in UNDERIVED why it cannot be"
    assert set(DERIVED) <= laws, "a derivation of something that is no public law"


@pytest.mark.parametrize("law", sorted(theory.__all__))
def test_every_proof_is_named_after_a_callable_law(law):
    assert callable(getattr(theory, law))
    if law in DERIVED:
        proof = derive(law)
        assert proof.law == law
        assert proof.inputs or law == "invariance_defect"  # which holds whatever the function


def test_every_equation_is_walked_or_checked_elsewhere(walkable, request):
    """A new matrix, expansion, limit or differential equation needs a test of its own, named above."""
    left = {
        (law, number)
        for law in HERE
        for number, step in enumerate(derive(law).steps, start=1)
        if not all(walkable(equation) for equation in step.equations)
    }
    assert left == set(ELSEWHERE)
    sources = "".join(path.read_text() for path in request.path.parent.glob("test_*.py") if path != request.path)
    assert all(f"def {name}(" in sources for name in ELSEWHERE.values())


def test_every_derivation_has_a_formula_test(request):
    """Every law's name appears in a test of its formula or of the equations it solves, not in a list of names alone."""
    sources = "".join(path.read_text() for path in request.path.parent.glob("test_*.py") if path != request.path)
    for law in HERE:
        assert len(re.findall(rf"\b{law}\b", sources)) >= 2, law


def balanced(text):
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if mark == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def spelled_out(formula):
    """The same for matplotlib's parser, which knows no short forms, operator names and limits."""
    formula = re.sub(r"\\operatorname\{(\w+)\}", r"\\mathrm{\1}", formula)
    formula = re.sub(r"\\(frac)(\w)(\w)", r"\\\1{\2}{\3}", formula)
    formula = re.sub(r"\\sqrt (\w)", r"\\sqrt{\1}", formula)
    formula = re.sub(r"\\([gl])e(?![a-z])", r"\\\1eq", formula)
    return formula.replace(r"\limits", "").replace(r"\lvert", "|").replace(r"\rvert", "|").replace(r"\substack", "")


@pytest.mark.parametrize("law", DERIVED)
def test_every_step_is_latex(law):
    """Braces and delimiters balance; what matplotlib's TeX knows, it parses: all but matrices and cases."""
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser = mathtext.MathTextParser("path")
    proof = derive(law)
    body = proof.latex()
    formulas = re.findall(r"\\\[ (.*?) \\\]", body, flags=re.DOTALL)
    assert len(formulas) == sum(len(step.equations) for step in proof.steps)
    assert not any(isinstance(equation, BooleanAtom) for step in proof.steps for equation in step.equations)
    for formula in formulas:
        assert balanced(formula), formula
        assert formula.count(r"\left") == formula.count(r"\right"), formula
        if r"\begin{" not in formula:
            parser.parse(f"${spelled_out(formula)}$")
    for sentence in (proof.setting, *(step.text for step in proof.steps)):
        assert sentence.count("$") % 2 == 0
        for formula in re.findall(r"\$(.*?)\$", sentence):
            assert balanced(formula), formula
            parser.parse(f"${spelled_out(formula)}$")
        assert "_" not in re.sub(r"\$.*?\$|\\_|`.*?`", "", sentence), "an underscore outside of mathematics"


def test_every_proof_is_quick():
    """Two seconds each on an idle machine, in a fresh process; processor time doubles where other tests share it."""
    code = (
        "import time, theory\nfrom theory.derivations import DERIVED, derive\n"
        "for law in DERIVED:\n"
        "    start = time.process_time()\n    derive(law).latex()\n    print(law, time.process_time() - start)\n"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    seconds = {law: float(taken) for law, taken in (line.split() for line in lines if line)}
    assert seconds.keys() == set(DERIVED)
    assert max(seconds.values()) < 4, seconds
