import numpy as np
import pytest
import torch
from torch import nn

from empirics.averages import Averages, spelled
from theory.errors import InputError


def walk(steps):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    averages = Averages(("ema:5", "swa:4"), model, optimizer)
    path = [model.weight.detach().double().numpy().copy()]
    for _ in range(steps):
        model.weight.grad = torch.randn(2, 3)
        optimizer.step()
        path.append(model.weight.detach().double().numpy().copy())
    return model, averages, path


def test_they_are_the_weighted_means_written_out():
    model, averages, path = walk(20)
    decay = 2 ** (-1 / 5)
    shares = np.array([decay**20] + [(1 - decay) * decay ** (20 - t) for t in range(1, 21)])
    assert shares.sum() == pytest.approx(1)
    expected = {"ema:5": np.einsum("t,tij", shares, path), "swa:4": np.mean(path[5:], axis=0)}
    own = model.weight.detach().clone()
    for name in averages.ready():
        with averages.applied(name):
            assert np.allclose(model.weight.detach().numpy(), expected[name], atol=1e-6)  # float32, 20 updates
        assert torch.equal(model.weight.detach(), own)


def test_a_mean_that_has_not_begun_is_not_ready_and_state_comes_back():
    _, averages, _ = walk(4)
    assert averages.ready() == ["ema:5"]
    _, later, _ = walk(9)
    later.load_state_dict(averages.state_dict())
    assert later.step == 4
    for name, means in averages.state_dict()["means"].items():
        assert all(torch.equal(a, b) for a, b in zip(means, later.state_dict()["means"][name], strict=True))


def test_spellings():
    assert spelled(["swa:010", "ema:2.50", "ema:2.5"], steps=20) == ("swa:10", "ema:2.5")
    for wrong in (("ema",), ("ema:-1",), ("swa:1.5",), (3,)):
        with pytest.raises(InputError, match="averages = "):
            spelled(wrong, steps=20)
