import math
import time

import pytest
import torch
from torch import nn

from empirics.probes.bill import Bill, Schedule
from empirics.probes.rotation import Rotation
from theory.errors import InputError


def due(schedule: Schedule, steps: int) -> list[int]:
    return [step for step in range(steps) if schedule.due(step)]


@pytest.mark.parametrize("every", [1, 7, 50])
def test_every_so_many_steps(every):
    assert due(Schedule.of(every), 200) == list(range(0, 200, every))
    assert Schedule.of(Schedule(every=every)) == Schedule(every=every)


@pytest.mark.parametrize("per_decade", [1, 3, 10, 17, 100])
def test_log_spaced_steps_are_the_rounded_powers(per_decade):
    limit = 20_000
    powers = {round(10 ** (k / per_decade)) for k in range(math.ceil(per_decade * math.log10(limit)) + 1)}
    assert due(Schedule(per_decade=per_decade), limit) == sorted({0} | {p for p in powers if p < limit})


def test_the_end_and_unions():
    assert due(Schedule(last=9), 20) == [9]
    assert due(Schedule(every=8, last=9), 20) == [0, 8, 9, 16]
    assert due(Schedule(every=1000, per_decade=1, last=150), 200) == [0, 1, 10, 100, 150]


def test_impossible_schedules():
    for fields in ({}, {"every": -1}, {"per_decade": 1.5}, {"last": -2}):
        with pytest.raises(InputError):
            Schedule(**fields)
    with pytest.raises(InputError):
        Schedule.of(0)


def test_seconds_and_share_are_those_of_the_clock():
    bill = Bill()
    for _ in range(3):
        with bill.charge("slow"):
            time.sleep(0.02)
        time.sleep(0.02)
    cost = bill.cost()
    (item,) = cost.items
    assert item.calls == 3
    assert 0.06 <= item.seconds <= cost.seconds - 0.06  # sleep never wakes early
    assert item.share == pytest.approx(item.seconds / cost.seconds)
    assert "slow" in str(cost)
    assert f"{item.share:.2%}" in str(cost)


def test_what_is_nested_is_charged_once_and_an_error_is_charged_too():
    bill = Bill()

    @bill.charge("outer")
    def fail():
        with bill.charge("inner"):
            time.sleep(0.01)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with bill.charge("after"):
        pass
    assert [item.probe for item in bill.cost().items] == ["outer", "after"]
    assert bill.cost().items[0].seconds >= 0.01


def test_a_bracket_charges_the_hooks_inside_it_and_no_others():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bill = Bill()
    optimizer.register_step_pre_hook(lambda *_: time.sleep(0.03))
    with bill.bracket("probe", optimizer):
        rotation = Rotation(model, optimizer, every=1)
        optimizer.register_step_post_hook(lambda *_: time.sleep(0.01))
    optimizer.register_step_post_hook(lambda *_: time.sleep(0.03))
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    (item,) = bill.cost().items
    assert item.calls == 4
    assert 0.02 <= item.seconds <= bill.cost().seconds - 0.12
    assert [step for step, _ in rotation.flush()] == [0, 0, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_time_is_the_devices():
    bill, x = Bill("cuda"), torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    for _ in range(20):
        with bill.charge("product"):
            x @ x
    cost = bill.cost()
    assert cost.items[0].calls == 20
    assert 0 < cost.items[0].seconds <= cost.seconds
    assert cost.items[0].seconds > 20 * 2 * 4096**3 / 2e15  # no GPU does more than 2 PFLOP/s in float32
