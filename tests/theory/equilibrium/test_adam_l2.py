"""Adam with coupled decay: against torch.optim.Adam, equal and unequal gradient scales."""

import numpy as np
import pytest
import torch

from theory import adam_l2_equilibrium
from theory.errors import InputError


@pytest.mark.parametrize("scales", ["equal", "unequal"])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99)])
def test_torch_settles_there(simulate, betas, scales):
    lr, wd, d = 0.02, 0.003, 1024
    s = np.full(d, 1.0) if scales == "equal" else np.repeat([0.5, 2.0], d // 2)
    s = s / np.linalg.norm(s)
    law = adam_l2_equilibrium(lr, wd, betas, s)
    skipped = 500 + int(3 / (1 - betas[1]))
    sample = simulate(
        lambda p: torch.optim.Adam(p, lr=lr, weight_decay=wd, betas=betas, eps=1e-30),
        [lr] * (skipped + 3_000),
        d=d,
        rows=6,
        norm0=law.norm,
        scale_invariant=True,
        scales=None if scales == "equal" else s,
    )
    late, bar = slice(skipped, None), 0.01  # theory.md 2.7
    for (measured, error), predicted in zip(
        (sample.norm(late, 3_000), sample.angle(late, 3_000)), (law.norm, law.angle), strict=True
    ):
        assert error[0] < bar / 4
        assert abs(predicted / measured[0] - 1) < bar + 3 * error[0]


def test_leading_order():
    """||w||^3 = lr sum(s)/2wd and angle^2 = 2 lr wd ||w|| (1-b1)/((1+b1) mean s) as the decay vanishes."""
    s, counts, lr = np.array([0.01, 0.03]), np.array([300, 200]), 1e-3
    gaps = []
    for wd in (1e-4, 1e-6):
        law = adam_l2_equilibrium(lr, wd, (0.9, 0.999), s, counts)
        cube = lr * float(counts @ s) / (2 * wd)
        square = 2 * lr * wd * law.norm * 0.1 / 1.9 / (float(counts @ s) / counts.sum())
        gaps.append((abs(law.norm**3 / cube - 1), abs(law.angle**2 / square - 1)))
    assert max(gaps[1]) < 1e-3
    assert all(fine < coarse / 10 for coarse, fine in zip(*gaps, strict=True))


def test_counts_are_multiplicities():
    by_hand = adam_l2_equilibrium(0.01, 1e-3, (0.9, 0.999), [0.1, 0.2, 0.2])
    counted = adam_l2_equilibrium(0.01, 1e-3, (0.9, 0.999), [0.1, 0.2], [1, 2])
    assert (counted.norm, counted.angle) == pytest.approx((by_hand.norm, by_hand.angle), rel=1e-12)


def test_norm_falls_as_the_cube_root_of_decay():
    norms = [adam_l2_equilibrium(0.01, wd, (0.9, 0.999), [0.03], [1000]).norm for wd in (1e-5, 8e-5)]
    assert norms[0] / norms[1] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.01, 0.0, (0.9, 0.99), [0.1]), ("lr * weight_decay = 0.0", "positive")),
        ((0.01, 0.1, (0.9, 0.99), [0.1, 0.0]), ("s_unit = [0.1, 0.0]", "positive")),
        ((0.01, 0.1, (0.9, 0.99), [0.1], [1, 2]), ("s_unit", "as many as counts")),
        ((0.01, 0.1, (1.0, 0.99), [0.1]), ("betas[0] = 1.0", "< 1")),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(InputError) as error:
        adam_l2_equilibrium(*arguments)
    assert all(word in str(error.value) for word in words), str(error.value)
