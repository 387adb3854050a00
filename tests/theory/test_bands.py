import pytest

from theory.bands import calibrated_band, prior_band
from theory.optimizers import SGD, Adam, AdamW


def bands():
    yield calibrated_band()
    for optimizer in (SGD(0.1), SGD(0.1, 0.9), Adam(0.1), AdamW(0.1)):
        for invariant in (True, False):
            for matrix in (True, False):
                yield prior_band(optimizer, scale_invariant=invariant, matrix=matrix)


@pytest.mark.parametrize("side", ["norm", "angle", "update"])
def test_every_band_holds_the_prediction_itself(side):
    for band in bands():
        low, high = getattr(band, side)
        assert 0 < low < 1 < high


def test_measured_and_invariant_tensors_are_known_better():
    width = lambda band: band.norm[1] / band.norm[0]
    invariant, free = (prior_band(AdamW(0.1), scale_invariant=value) for value in (True, False))
    assert width(invariant) < width(free)
    assert width(calibrated_band()) < width(invariant)
    assert not prior_band(AdamW(0.1), scale_invariant=False, matrix=False).keeps_start
    assert free.keeps_start
