import errno
import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from empirics import checkpoint, files
from empirics.checkpoint import DamagedCheckpointError, checkpoints, load, load_latest, save
from empirics.files import DiskFullError
from theory.errors import InputError


def pair(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with tied weights and a buffer, and an optimizer with state."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 4, bias=False))
    model[2].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    advance(model, optimizer)
    return model, optimizer


def advance(model, optimizer):
    model(torch.randint(4, (8,))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def contents(model, optimizer):
    moments = [t for state in optimizer.state_dict()["state"].values() for t in state.values()]
    return [t.clone() for t in [*model.state_dict().values(), *moments]]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_weights_buffers_moments_and_generators_come_back_bitwise(tmp_path):
    model, optimizer = pair()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002
    save(tmp_path, 7, model=model, optimizer=optimizer, keep=2)
    expected = contents(model, optimizer)
    drawn = random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
    advance(model, optimizer)
    later = contents(model, optimizer)

    other, its_optimizer = pair(seed=9)
    assert not same(contents(other, its_optimizer), expected)
    assert load_latest(tmp_path, model=other, optimizer=its_optimizer) == 7
    assert same(contents(other, its_optimizer), expected)
    assert other[0].weight is other[2].weight
    again = random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
    assert again[:2] == drawn[:2]
    assert torch.equal(again[2], drawn[2])
    torch.manual_seed(3)
    torch.rand(3)
    advance(other, its_optimizer)
    assert same(contents(other, its_optimizer), later)


def test_files_are_those_of_the_run_directory_and_tied_weights_are_stored_once(tmp_path):
    model, optimizer = pair()
    path = save(tmp_path, 200, model=model, optimizer=optimizer, keep=2)
    assert path.name == "step-00000200"
    assert sorted(os.listdir(path)) == ["complete.json", "model.safetensors", "state.pt"]
    from safetensors.torch import load_file

    assert "2.weight" not in load_file(path / "model.safetensors")
    assert json.loads((path / "complete.json").read_text())["step"] == 200


def test_only_the_newest_are_kept(tmp_path):
    model, optimizer = pair()
    for step in (1, 2, 10, 3):
        save(tmp_path, step, model=model, optimizer=optimizer, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003", "step-00000010"]


def damage_bit(path):
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def half_written(path):
    (path / "complete.json").unlink()


def cut_off(path):
    file = path / "state.pt"
    file.write_bytes(file.read_bytes()[:100])


def without_weights(path):
    (path / "model.safetensors").unlink()


def empty_complete(path):
    (path / "complete.json").write_text("")


@pytest.mark.parametrize("harm", [damage_bit, half_written, cut_off, without_weights, empty_complete])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_is_used(tmp_path, harm):
    model, optimizer = pair()
    save(tmp_path, 1, model=model, optimizer=optimizer, keep=3)
    expected = contents(model, optimizer)
    advance(model, optimizer)
    harm(save(tmp_path, 2, model=model, optimizer=optimizer, keep=3))
    with pytest.warns(
        UserWarning, match=r"Checkpoint .*step-00000002 is (corrupt|incomplete).*The one before it is used"
    ):
        assert load_latest(tmp_path, model=model, optimizer=optimizer) == 1
    assert same(contents(model, optimizer), expected)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]


def test_with_nothing_usable_a_run_begins_at_zero_untouched(tmp_path):
    model, optimizer = pair()
    expected = contents(model, optimizer)
    assert load_latest(tmp_path / "nowhere", model=model, optimizer=optimizer) == 0
    damage_bit(save(tmp_path, 1, model=model, optimizer=optimizer, keep=1))
    with pytest.warns(UserWarning, match="corrupt"):
        assert load_latest(tmp_path, model=model, optimizer=optimizer) == 0
    assert same(contents(model, optimizer), expected)


def test_another_models_checkpoint_is_an_error_not_a_fresh_start(tmp_path):
    model, optimizer = pair()
    save(tmp_path, 1, model=model, optimizer=optimizer, keep=1)
    for other in (nn.Linear(3, 4), nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(3))):
        its_optimizer = torch.optim.AdamW(other.parameters())
        with pytest.raises(InputError, match="does not fit the model") as caught:
            load_latest(tmp_path, model=other, optimizer=its_optimizer)
        assert not isinstance(caught.value, DamagedCheckpointError)


def test_weights_alone_can_be_loaded(tmp_path):
    model, optimizer = pair()
    path = save(tmp_path, 5, model=model, optimizer=optimizer, keep=1)
    other, _ = pair(seed=4)
    before = torch.get_rng_state()
    assert load(path, model=other) == 5
    assert torch.equal(other[0].weight, model[0].weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, when):
    model, optimizer = pair()
    save(tmp_path, 1, model=model, optimizer=optimizer, keep=1)
    expected = contents(model, optimizer)
    advance(model, optimizer)
    calls = []

    def full(path, data):
        calls.append(path)
        if len(calls) == when:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        files.write_file(path, data)

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(DiskFullError, match=r"The disk is full: .*step-00000002 could not be written"):
        save(tmp_path, 2, model=model, optimizer=optimizer, keep=1)
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path, model=model, optimizer=optimizer) == 1
    assert same(contents(model, optimizer), expected)


def test_what_a_killed_save_left_is_cleared_and_never_loaded(tmp_path):
    model, optimizer = pair()
    (tmp_path / ".step-00000009.tmp").mkdir()
    assert load_latest(tmp_path, model=model, optimizer=optimizer) == 0
    save(tmp_path, 1, model=model, optimizer=optimizer, keep=1)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_some_are_kept_for_good(tmp_path):
    model, optimizer = pair()
    for step in range(1, 9):
        save(tmp_path, step, model=model, optimizer=optimizer, keep=2, keep_every=3)
    assert [int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path)] == [3, 6, 7, 8]


def test_one_that_was_being_replaced_comes_back(tmp_path):
    model, optimizer = pair()
    expected = contents(model, optimizer)
    path = save(tmp_path, 1, model=model, optimizer=optimizer, keep=1)
    path.rename(tmp_path / ".step-00000001.old")  # killed between the two renamings
    advance(model, optimizer)
    assert load_latest(tmp_path, model=model, optimizer=optimizer) == 1
    assert same(contents(model, optimizer), expected)
    assert os.listdir(tmp_path) == ["step-00000001"]


def save_forever(folder, report):
    """Save step after step, each one twice, and say so; the weights are the step."""
    model = nn.Linear(64, 64, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 10_000):
        nn.init.constant_(model.weight, step)
        for _ in range(2):
            save(folder, step, model=model, optimizer=optimizer, keep=1)
            os.write(report, step.to_bytes(4, "little"))


@pytest.mark.parametrize("trial", range(20))
def test_kill_9_at_a_random_moment_loses_nothing_that_was_saved(tmp_path, trial):
    """keep is 1: there is only one checkpoint to lose."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_forever(tmp_path, write)
        finally:
            os._exit(1)
    os.close(write)
    said = os.read(read, 4)  # the first save is done
    time.sleep(random.SystemRandom().uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 4096):
        said += more
    os.close(read)
    reported = int.from_bytes(said[-4:], "little")
    model = nn.Linear(64, 64, bias=False)
    step = load_latest(tmp_path, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert reported <= step <= reported + 1
    assert torch.equal(model.weight.detach(), torch.full((64, 64), float(step)))
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())  # nothing damaged, nothing left over
