import copy
import gc
import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.bill import Bill
from empirics.probes.rotation import Rotation
from empirics.probes.windows import Windows
from theory.errors import InputError

SIZE = {"vocab_size": 50, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 16}


def exact_angle(before: torch.Tensor, after: torch.Tensor) -> float:
    u, v = (w.double() / w.double().norm() for w in (before, after))
    return 2 * math.atan2((u - v).norm().item(), (u + v).norm().item())


def gpt2_step(model, optimizer):
    tokens = torch.randint(50, (4, 8))
    model.loss(tokens, tokens.roll(-1, 1)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_quantity_against_its_definition(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Conv2d(4, 3, 1)).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.3)
    windows = Windows(model, optimizer, spans=(1, 3, 5), every=6, rows=["0.weight"])
    expected = {}
    for step in range(13):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        before = {name: p.detach().clone().double() for name, p in model.named_parameters()}
        grads = {name: p.grad.double() for name, p in model.named_parameters()}
        if step % 6 == 0:
            opened, first = step, before
        optimizer.step()
        after = {name: p.detach().double() for name, p in model.named_parameters()}
        span = step + 1 - opened
        if span not in (1, 3, 5):
            continue
        row = expected[step] = {f"angle_{span}": {n: exact_angle(first[n], after[n]) for n in after}}
        each = {f"0.weight[{i}]": exact_angle(first["0.weight"][i], after["0.weight"][i]) for i in range(4)}
        convolution = [exact_angle(first["2.weight"][i], after["2.weight"][i]) for i in range(3)]
        row[f"row_angle_{span}"] = {
            "0.weight": math.sqrt(sum(x**2 for x in each.values()) / 4),
            "2.weight": math.sqrt(sum(x**2 for x in convolution) / 3),
        } | each
        if span == 1:
            splits = row["grad_radial"], row["update_radial"], row["update_tangential"] = {}, {}, {}
            for n, w in before.items():
                d, g = after[n] - w, grads[n]
                along = (d * w).sum() / w.norm() ** 2
                splits[0][n] = ((g * w).sum() / (g.norm() * w.norm())).item()
                splits[1][n] = along.item()
                splits[2][n] = ((d - along * w).norm() / w.norm()).item()
    measured = windows.flush()
    assert [step for step, _ in measured] == [0, 2, 4, 6, 8, 10, 12] == list(expected)
    for step, values in measured:
        assert values.keys() == expected[step].keys()
        for quantity, each in values.items():
            assert each == pytest.approx(expected[step][quantity], rel=1e-4, abs=1e-6)


def test_angle_over_one_step_is_that_of_rotation():
    torch.manual_seed(0)
    model = GPT2Config(**SIZE).build(seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rotation, windows = Rotation(model, optimizer, every=4), Windows(model, optimizer, spans=(1, 4))
    for _ in range(8):
        gpt2_step(model, optimizer)
    angles = {step: values["angle"] for step, values in rotation.flush()[1:]}
    ones = {step: values["angle_1"] for step, values in windows.flush() if "angle_1" in values}
    assert ones.keys() == angles.keys() == {0, 4}
    for step, values in ones.items():
        assert values == pytest.approx(angles[step], rel=1e-4)


def test_straight_motion_adds_angles_and_a_random_walk_adds_their_squares():
    """In two dimensions a turn by a an step is n*a over n; independent signs give sqrt(n)*a in the mean square."""
    model = nn.ParameterDict({"w": nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))})

    class Turn(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure=None):
            angle = torch.tensor(1e-3, dtype=torch.float64)
            c, s = angle.cos(), angle.sin()
            w = self.param_groups[0]["params"][0]
            w.copy_(1.01 * torch.stack([c * w[0] - s * w[1], s * w[0] + c * w[1]]))

    optimizer = Turn(model.parameters(), {"lr": 1.0})
    windows = Windows(model, optimizer)
    for _ in range(100):
        optimizer.step()
    found = dict(windows.flush())
    assert found[0]["angle_1"]["w"] == pytest.approx(1e-3, rel=1e-9)
    assert found[9]["angle_10"]["w"] == pytest.approx(1e-2, rel=1e-9)
    assert found[99]["angle_100"]["w"] == pytest.approx(0.1, rel=1e-9)

    wide = nn.ParameterDict({"w": nn.Parameter(torch.ones(4_000, dtype=torch.float64))})
    generator = torch.Generator().manual_seed(0)

    class Walk(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure=None):
            self.param_groups[0]["params"][0].add_(torch.randn(4_000, dtype=torch.float64, generator=generator) * 1e-4)

    optimizer = Walk(wide.parameters(), {"lr": 1.0})
    windows = Windows(wide, optimizer)
    for _ in range(100):
        optimizer.step()
    found = dict(windows.flush())
    # |noise| over 4000 coordinates is known to 1/sqrt(2*4000) = 1.1 %: five of them
    assert found[99]["angle_100"]["w"] == pytest.approx(10 * 1e-4, rel=0.056)
    assert found[9]["angle_10"]["w"] == pytest.approx(math.sqrt(10) * 1e-4, rel=0.056)


def test_pure_decay_is_radial_and_a_scale_invariant_gradient_is_not():
    model = GPT2Config(**SIZE, scale_invariant=True).build(seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    windows = Windows(model, optimizer, spans=(1,))
    gpt2_step(model, optimizer)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    (_, real), (_, decay) = windows.flush()
    invariant = [name for name in real["grad_radial"] if "attn" in name or "mlp" in name]
    assert len(invariant) == 6
    assert all(abs(real["grad_radial"][name]) < 1e-5 for name in invariant)
    assert all(x == pytest.approx(-0.001, rel=1e-4) for x in decay["update_radial"].values())
    assert all(x < 1e-6 for x in decay["update_tangential"].values())  # float32 rounding of the step
    assert all(math.isnan(x) for x in decay["grad_radial"].values())


def test_rows_of_a_conv1d_are_its_columns_and_dead_rows_do_not_count():
    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 4.0]]))

    model = nn.ModuleDict({"fc": Conv1D()})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    windows = Windows(model, optimizer, spans=(1,), rows=["fc.weight"])
    model["fc"].weight.grad = torch.tensor([[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    optimizer.step()
    ((_, values),) = windows.flush()
    rows = values["row_angle_1"]
    assert rows["fc.weight[0]"] == pytest.approx(math.pi / 4)
    assert math.isnan(rows["fc.weight[1]"])
    assert rows["fc.weight[2]"] == 0
    assert rows["fc.weight"] == pytest.approx(math.pi / 4 / math.sqrt(2))


def test_a_tensor_without_gradient_has_angles_but_no_split():
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(3))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    windows = Windows(model, optimizer, spans=(1,))
    model["b"].grad = torch.ones(3)
    optimizer.step()
    ((_, values),) = windows.flush()
    assert values["angle_1"] == {"a": 0.0, "b": pytest.approx(0, abs=1e-6)}
    assert values["grad_radial"] == {"b": pytest.approx(1)}
    assert values["update_radial"] == {"b": pytest.approx(-0.1)}


@pytest.mark.parametrize("kind", ["gpt2", "resnet"])
def test_training_with_the_probe_is_bitwise_training_without(kind):
    if kind == "gpt2":
        base = GPT2Config(**SIZE, dropout=0.1).build(seed=0)
        batch = (torch.randint(50, (4, 8)), torch.randint(50, (4, 8)))
    else:
        base = ResNetConfig(width=4).build(seed=0)
        batch = (torch.randn(8, 1, 8, 8), torch.randint(10, (8,)))
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(7)
        model = copy.deepcopy(base)
        build = torch.optim.AdamW if kind == "gpt2" else torch.optim.SGD
        optimizer = build(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
        windows = Windows(model, optimizer, spans=(1, 2, 3), bill=Bill()) if watched else None
        for step in range(7):
            model.loss(*batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            if windows is not None and step == 3:
                windows.flush()
        outcomes.append((list(model.state_dict().values()), torch.get_rng_state()))
    (plain, rng), (probed, probed_rng) = outcomes
    assert all(torch.equal(a, b) for a, b in zip(plain, probed, strict=True))
    assert torch.equal(rng, probed_rng)


def test_start_inside_a_window_waits_for_the_next():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    windows = Windows(model, optimizer, spans=(1, 3), every=4, start=5)
    for _ in range(8):  # 5 .. 12
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert [step for step, _ in windows.flush()] == [8, 10, 12]
    windows.close()
    optimizer.step()
    assert windows.flush() == []


def test_one_copy_of_the_weights_and_no_more_over_fifty_windows():
    model = GPT2Config(**SIZE).build(seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    windows = Windows(model, optimizer, spans=(1, 2))
    alive = []
    for step in range(100):
        gpt2_step(model, optimizer)
        windows.flush()
        if step in (19, 99):
            gc.collect()
            alive.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
    assert alive[1] <= alive[0]
    assert sum(c.numel() for c in windows._copies) == sum(p.numel() for p in model.parameters())
    windows.close()
    assert windows._copies == []


def test_bad_settings():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for options in (
        {"spans": ()},
        {"spans": (10, 1)},
        {"spans": (0, 1)},
        {"every": 99},
        {"rows": ["bias"]},
        {"rows": ["w"]},
        {"start": -1},
    ):
        with pytest.raises(InputError):
            Windows(model, optimizer, **options)
    with pytest.raises(InputError, match="must be the model's own"):
        Windows(nn.Linear(3, 3), optimizer)


def train_watched(model):
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    windows = Windows(model, optimizer, spans=(1, 2), rows=["transformer.h.0.mlp.c_proj.weight"])
    for _ in range(2):
        tokens = torch.randint(50, (4, 8))
        model(tokens).logsumexp(dim=-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return windows.flush()


def one_of_two(rank: int, out: Path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    model = fully_shard(GPT2Config(**SIZE).build(seed=0), mesh=init_device_mesh("cpu", (2,)))
    torch.save(train_watched(model), out / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down in order ("terminate called ...")


@pytest.mark.slow
def test_two_ranks_of_a_sharded_model_log_the_numbers_of_one(tmp_path):
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    alone = train_watched(GPT2Config(**SIZE).build(seed=0))
    for rank in range(2):
        sharded = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [step for step, _ in sharded] == [step for step, _ in alone]
        for (_, found), (_, expected) in zip(sharded, alone, strict=True):
            assert found.keys() == expected.keys()
            for quantity, values in expected.items():
                assert found[quantity] == pytest.approx(values, rel=1e-4, abs=1e-6)
