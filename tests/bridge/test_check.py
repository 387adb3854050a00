import math

import pytest

from bridge.check import Check, checks_table


@pytest.mark.parametrize(
    ("measured", "bound", "relation", "passed"),
    [(0.1, 0.1, "<=", True), (0.11, 0.1, "<=", False), (0.1, 0.1, ">=", True), (0.09, 0.1, ">=", False)]
    + [(math.nan, 0.1, relation, False) for relation in ("<=", ">=")]
    + [(math.inf, 0.1, ">=", False)],
)
def test_verdicts(measured, bound, relation, passed):
    check = Check("law", "claim", measured, bound, relation)
    assert check.passed is passed
    assert checks_table([check])["verdict"].tolist() == ["pass" if passed else "fail"]
