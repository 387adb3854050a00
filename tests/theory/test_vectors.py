"""Every law on its vectors, within the tolerance that each states (simulations, exact identities, closed forms)."""

import json
from pathlib import Path

import numpy as np
import pytest

import theory

CASES = [
    (file.stem, index, vector)
    for file in sorted((Path(__file__).parent / "vectors").glob("*.json"))
    for index, vector in enumerate(json.loads(file.read_text()))
]


def test_there_are_vectors_for_many_laws():
    assert len({law for law, *_ in CASES}) >= 12


@pytest.mark.parametrize(("law", "index", "vector"), CASES, ids=[f"{law}-{index}" for law, index, _ in CASES])
def test_law_holds_on_its_vector(law, index, vector):
    result = getattr(theory, law)(**vector["inputs"])
    for field, expected in vector["expected"].items():
        got = np.asarray(result[field] if isinstance(result, dict) else getattr(result, field), dtype=float)
        want, tolerance = np.asarray(expected, dtype=float), vector["tolerance"][field]
        error = np.abs(got - want) / np.where(want == 0, 1.0, np.abs(want))
        assert np.max(error) <= tolerance, f"{field}: {np.max(error):.2e} of {tolerance:.2e} ({vector['origin']})"
