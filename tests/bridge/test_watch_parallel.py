"""Two processes: one run directory, the numbers of one process, and nothing that hangs."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bridge.watch import watch
from empirics.records import Record


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 8, bias=False))


def train(model: nn.Module, root: Path, *, rank: int = 0, world: int = 1):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    with watch(model, optimizer, root=root, total_steps=6, every=2, flush_every=2, name="two") as w:
        for t in range(6):
            x = torch.randn(8, 8, generator=torch.Generator().manual_seed(t))
            model(x[rank::world]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return w


def one_of_two(rank: int, out: Path, kind: str):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    wrap = DistributedDataParallel if kind == "ddp" else lambda m: fully_shard(m, mesh=init_device_mesh("cpu", (2,)))
    w = train(wrap(build()), out / "runs", rank=rank, world=2)
    torch.save([w.path is None, len(w.table())], out / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down in order ("terminate called ...")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_write_one_record_with_the_numbers_of_one(kind, tmp_path):
    mp.spawn(one_of_two, (tmp_path, kind), nprocs=2)
    (path,) = (tmp_path / "runs").iterdir()
    alone = train(build(), tmp_path / "alone").record
    found, expected = Record(path), alone
    assert found.status == "finished"
    assert found.preregistered
    for quantity in ("norm0", "norm", "angle", "relative_update", "grad_norm"):
        table = found.pivot(quantity)
        assert table.columns.tolist() == ["0.weight", "2.weight"]
        # sums over shards, and gradients averaged over two halves of the batch, in float32
        torch.testing.assert_close(
            torch.tensor(table.values), torch.tensor(expected.pivot(quantity).values), rtol=1e-3, atol=0
        )
    silent, rows = torch.load(tmp_path / "1.pt", weights_only=True)
    assert silent
    assert rows == (0 if kind == "ddp" else 2)
