"""Every law on its vectors, within the tolerance that each states (simulations, exact identities, closed forms)."""

import json
from pathlib import Path

import numpy as np
import pytest

import theory
from theory.errors import InputError

FILES = sorted((Path(__file__).parent / "vectors").glob("*.json"))
CASES = [
    pytest.param(file.stem, vector, id=f"{file.stem}-{index}")
    for file in FILES
    for index, vector in enumerate(json.loads(file.read_text()))
    if "curvatures" not in vector["inputs"]  # a whole problem to run, not a call
]


@pytest.mark.parametrize("law", [file.stem for file in FILES])
def test_every_file_has_its_law(law):
    assert callable(getattr(theory, law, None))
    assert law in theory.__all__


def test_no_file_is_empty():
    assert len(FILES) >= 12
    assert all(len(json.loads(file.read_text())) >= 3 for file in FILES)


def _meaningless(law, vector):
    """The fixed point of an unstable recursion (lr*h_max*(1+1/B) >= 2): a negative risk, which no run can have."""
    return law == "least_squares_stationary" and vector["expected"]["excess"] < 0


@pytest.mark.parametrize(("law", "vector"), CASES)
def test_law_holds_on_its_vector(law, vector):
    assert vector["law"] == law
    if _meaningless(law, vector):
        with pytest.raises(InputError, match="unstable"):
            getattr(theory, law)(**vector["inputs"])
        return
    result = getattr(theory, law)(**vector["inputs"])
    for field, expected in vector["expected"].items():
        got = np.asarray(result[field] if isinstance(result, dict) else getattr(result, field), dtype=float)
        want, tolerance = np.asarray(expected, dtype=float), vector["tolerance"][field]
        assert got.shape == want.shape
        error = np.abs(got - want) / np.where(want == 0, 1.0, np.abs(want))
        assert np.max(error) <= tolerance, f"{field}: {np.max(error):.2e} of {tolerance:.2e} ({vector['origin']})"


def test_the_risk_diverges_where_the_stationary_vector_is_negative():
    """The law is right to refuse it: started beside that fixed point, the recursion of the risk runs away."""
    name = "least_squares_stationary"
    vectors = json.loads((FILES[0].parent / f"{name}.json").read_text())
    (inputs,) = [vector["inputs"] for vector in vectors if _meaningless(name, vector)]
    h, lr, batch = np.array(inputs["eigenvalues"]), inputs["lr"], inputs["batch_size"]
    assert lr * h.max() * (1 + 1 / batch) >= 2
    run = theory.least_squares_trajectory(
        h, [lr] * 400, 0.0, np.zeros_like(h), inputs["noise_variance"], batch, steps=[99, 199, 299, 399]
    )
    growth = run.excess[1:] / run.excess[:-1]
    assert np.all(growth > 2)
    # the rate is that of the second moments' linear map, whose spectral radius the law's condition keeps below 1
    moments = np.diag((1 - lr * h) ** 2 + (lr * h) ** 2 / batch) + lr**2 / batch * np.outer(h, h)
    assert growth[-1] == pytest.approx(np.abs(np.linalg.eigvals(moments)).max() ** 100, rel=1e-3)
