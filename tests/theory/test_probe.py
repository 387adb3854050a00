import pytest

from theory.errors import InputError
from theory.probe import Probe, TensorProbe


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TensorProbe(c2=-1.0), ("c2 = -1.0", ">= 0")),
        (lambda: TensorProbe(c2=0.0), ("c2 = 0.0", "positive")),
        (lambda: TensorProbe(norm=float("nan")), ("norm = nan", "finite")),
        (lambda: TensorProbe(long_run_ratio=-0.1), ("long_run_ratio = -0.1", ">= 0")),
        (lambda: TensorProbe(update_ratio=float("inf")), ("update_ratio = inf", "finite")),
        (lambda: Probe(-3), ("step = -3", ">= 0")),
        (lambda: Probe(0, {"w": 1.0}), ("tensors['w'] = 1.0", "TensorProbe")),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)
