"""Weights that live in a format: what a step leaves behind, and what decay then does."""

import pytest
import torch
from torch import Generator, nn

from empirics.precision import Rounding, round_, round_to, round_weights
from theory.errors import InputError


def small_step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], source: Generator) -> None:
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=source)
    optimizer.step()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_weights_are_in_the_format_from_the_start_until_the_handle_is_removed(rounding: Rounding) -> None:
    model, source = nn.Linear(16, 16), Generator().manual_seed(0)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)

    def inside() -> list[bool]:
        return [torch.equal(p, round_to(p.detach(), 7, 8)) for p in parameters]

    handle = round_weights(optimizer, 7, 8, rounding, Generator().manual_seed(1))
    assert all(inside())
    small_step(optimizer, parameters, source)
    assert all(inside())
    state = optimizer.state[parameters[0]]["exp_avg"]
    assert not torch.equal(state, round_to(state, 7, 8))  # the optimizer's own memory is float32
    handle.remove()
    small_step(optimizer, parameters, source)
    assert not any(inside())


def test_nearest_is_one_rounding_of_the_float32_step() -> None:
    start = torch.randn(200, generator=Generator().manual_seed(0)).bfloat16().float()
    kept, free = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [torch.optim.AdamW([p], lr=1e-3, weight_decay=0.1) for p in (kept, free)]
    round_weights(optimizers[0])
    for p, optimizer in zip((kept, free), optimizers, strict=True):
        small_step(optimizer, [p], Generator().manual_seed(1))
    assert torch.equal(kept, free.bfloat16().float())


def test_decay_below_half_a_spacing_survives_only_stochastic_rounding() -> None:
    """lr*wd = 2^-10 < 2^-9: to nearest no bf16 weight moves; stochastically the mean decays as in float32."""
    kinds: tuple[Rounding, ...] = ("nearest", "stochastic")
    weights: dict[Rounding, nn.Parameter] = {kind: nn.Parameter(torch.full((20_000,), 1.5)) for kind in kinds}
    for kind, p in weights.items():
        optimizer = torch.optim.AdamW([p], lr=2.0**-10, weight_decay=1.0)
        handle = round_weights(optimizer, 7, 8, kind, Generator().manual_seed(0))
        for _ in range(50):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        handle.remove()
    assert bool((weights["nearest"] == 1.5).all())
    decayed = weights["stochastic"].detach().double()
    assert abs(float(decayed.mean()) - 1.5 * (1 - 2.0**-10) ** 50) < 4 * float(decayed.std()) / 20_000**0.5


def test_bad_input_changes_nothing() -> None:
    single, double = nn.Parameter(torch.tensor([1.001])), nn.Parameter(torch.ones(1).double())
    optimizer = torch.optim.SGD([single, double], lr=0.1)
    for call in (lambda: round_weights(optimizer), lambda: round_([single, double]), lambda: round_([single], 99)):
        with pytest.raises(InputError, match="must be"):
            call()
    assert single.item() == torch.tensor(1.001).item()
    single.grad = torch.tensor([0.0])
    optimizer.step()
    assert single.item() == torch.tensor(1.001).item()
