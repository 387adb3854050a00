import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from empirics.models import GPT2Config
from empirics.probes.products import ByDot, ByNorm, meter
from empirics.probes.rotation import Rotation
from empirics.tensors import tensors

SHAPE = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16)


def train_watched(model):
    """Two steps; what the probe measured."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rotation = Rotation(model, optimizer, every=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        tokens = torch.randint(50, (4, 8), generator=generator)
        model(tokens).logsumexp(dim=-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return rotation.flush()


def one_of_two(rank: int, out: Path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    model = fully_shard(SHAPE.build(seed=0), mesh=init_device_mesh("cpu", (2,)))
    torch.save(train_watched(model), out / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down in order ("terminate called ...")


@pytest.mark.slow
def test_two_ranks_of_a_sharded_model_log_the_numbers_of_one(tmp_path):
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    alone = train_watched(SHAPE.build(seed=0))
    for rank in range(2):
        sharded = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [step for step, _ in sharded] == [step for step, _ in alone]
        for (_, found), (_, expected) in zip(sharded, alone, strict=True):
            assert found.keys() == expected.keys()
            for quantity, values in expected.items():
                assert found[quantity] == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_give_the_products_of_the_definition(dtype):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"qkv": torch.nn.Linear(300, 900), "head": torch.nn.Linear(300, 2)}).to(dtype)
    views = tensors(model)
    grads = [torch.randn(view.shape, dtype=dtype) for view in views]
    active = [0, 2, 3, 6, 7]
    before = [view.view().clone().double() for view in views]
    meters = [kind(views) for kind in (ByDot, ByNorm)]
    for each in meters:
        each.before(active, [grads[i] for i in active])
    with torch.no_grad():
        for view in views:
            view.view().mul_(0.99).add_(0.01 * torch.randn(view.shape, dtype=dtype))
    expected = []
    for i in active:
        w, new, g = before[i], views[i].view().double(), grads[i].double()
        d = w - new
        expected.append([(g * g).sum(), (w * w).sum(), (d * d).sum(), (new * d).sum()])
    table = torch.tensor(expected).T
    with torch.no_grad():
        for each in meters:
            assert torch.allclose(each.after(active).double(), table, rtol=1e-5, atol=1e-6 * table[1].max().item())


def test_the_cpu_takes_dot_products():
    assert isinstance(meter(tensors(torch.nn.Linear(2, 2))), ByDot)
    assert isinstance(meter(tensors(torch.nn.Linear(2, 2, device="meta"))), ByNorm)
