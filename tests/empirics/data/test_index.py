import json
import os
import re

import numpy as np
import psutil
import pytest
import torch

from empirics.data import TextData
from empirics.data.cache import prepared
from empirics.data.index import INDEX, Index, Shard, check_files, read_index
from empirics.data.shards import prepare
from theory.errors import InputError


def make(folder, train, val, *, complete=True):
    """A folder of shards with these tokens."""
    import hashlib

    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for split, arrays in (("train", train), ("val", val)):
        for number, tokens in enumerate(arrays):
            data = np.asarray(tokens, "<u2")
            name = f"{split}-{number:05d}.bin"
            data.tofile(folder / name)
            digest = hashlib.sha256(data.tobytes()).hexdigest()
            found.append(Shard(name, split, len(data), int(data.max()), 1, digest))
    index = Index("given", "", "gpt2-300", 300, 5, 100, 9, complete, None, tuple(found))
    (folder / INDEX).write_text(index.to_json())
    return index


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "shards", [range(0, 53), range(60, 81), range(100, 150)], [range(200, 225), range(230, 234)])
    return tmp_path / "shards"


def data(folder, **changes):
    return TextData(**({"source": f"bin:{folder}", "vocab_size": 300, "block_size": 9} | changes))


def test_one_pass_visits_every_window_of_every_shard_once_in_a_seeded_order(folder):
    text = data(folder).open()
    text.check(12, 1)
    visited = [text.batch(step, 2) for step in range(6)]
    assert all(torch.equal(targets, inputs + 1) for inputs, targets in visited)  # no window crosses a shard's end
    starts = torch.cat([inputs[:, 0] for inputs, _ in visited]).tolist()
    assert sorted(starts) == [0, 10, 20, 30, 40, 60, 70, 100, 110, 120, 130, 140]
    assert starts != sorted(starts)
    again, other = data(folder).open(), data(folder, order_seed=1).open()
    assert torch.equal(again.batch(3, 2)[0], visited[3][0])
    assert not torch.equal(other.batch(3, 2)[0], visited[3][0])
    assert [inputs[:, 0].tolist() for inputs, _ in text.validation(2)] == [[200, 210]]


def test_fewer_tokens_than_the_pass_needs(folder):
    with pytest.raises(InputError, match=re.escape("has 12 windows of 10 tokens, so 30 tokens are missing")):
        data(folder).open().check(5, 3)


def test_hash_is_that_of_the_index_and_reads_nothing(folder, tmp_path):
    make(tmp_path / "other", [range(1, 53)], [range(200, 225)])
    make(tmp_path / "swapped", [range(200, 225)], [range(1, 53)])
    assert data(folder).open().hash == data(folder).open().hash
    hashes = {data(x).open().hash for x in (folder, tmp_path / "other", tmp_path / "swapped")}
    assert len(hashes) == 3


def test_shards_that_prepare_wrote_hold_the_documents(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} says {i * i}. " * 6)
    index = prepare(f"text:{tmp_path / 'text'}", tmp_path / "out", vocab_size=300, heldout_every=4, shard_tokens=1_500)
    text = data(tmp_path / "out").open()
    assert len(text.train) == index.tokens("train")
    assert len(index.of("train")) > 2
    text.batch(len(text.train) // 11 // 4 - 5, 4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "train-00001.bin").unlink(),
            r"train-00001\.bin is missing, though index\.json lists",
        ),
        (lambda folder: os.truncate(folder / "train-00001.bin", 30), "has 30 bytes instead of the 42 of its 21 tokens"),
        (lambda folder: os.truncate(folder / "val-00000.bin", 49), "has 49 bytes instead of the 50"),
        (lambda folder: os.truncate(folder / "val-00000.bin", 52), "has 52 bytes instead of the 50"),
        (lambda folder: (folder / INDEX).write_text("{"), "cannot be read as an index of token shards"),
        (lambda folder: (folder / INDEX).write_text("[]"), "cannot be read as an index of token shards"),
        (lambda folder: (folder / INDEX).write_text('{"format": "other"}'), "format = 'other' is not allowed"),
    ],
)
def test_damaged_folders_are_refused_in_one_sentence(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        data(folder).open()
    assert "\n" not in str(error.value)


def test_an_altered_index_or_shard_is_found(folder):
    with (folder / "train-00001.bin").open("r+b") as file:
        file.write(b"\x07")
    data(folder).open()  # the length is right; contents are read on demand only
    with pytest.raises(InputError, match=r"train-00001\.bin is damaged"):
        check_files(folder, read_index(folder), contents=True)
    tree = json.loads((folder / INDEX).read_text())
    tree["shards"][0]["sha256"] = tree["shards"][1]["sha256"]
    (folder / INDEX).write_text(json.dumps(tree))
    with pytest.raises(InputError, match="was changed by hand"):
        data(folder).open()


def test_unfinished_folders_are_refused(tmp_path):
    make(tmp_path, [range(50)], [range(50)], complete=False)
    with pytest.raises(InputError, match="is not finished: the `decaylab data` command that began it continues it"):
        data(tmp_path).open()


def test_ids_beyond_the_vocabulary_are_found_by_the_index(folder):
    with pytest.raises(InputError, match=r"at least 234, as .*val-00001\.bin has the token 233"):
        data(folder, vocab_size=233).open()
    data(folder, vocab_size=234).open()


def test_ids_beyond_the_vocabulary_are_found_by_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("empirics.data.index.LOOKED_AT", 10)
    tokens = np.arange(100, dtype="<u2")
    tokens.tofile(tmp_path / "train.bin")
    tokens.tofile(tmp_path / "val.bin")
    text = data(tmp_path, vocab_size=90).open()
    with pytest.raises(InputError, match="at least 100, as the batch has the token 99"):
        text.batch(0, 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x01", "its 1 bytes are an odd number"),
        (b"\x01" * 201, "its 201 bytes are an odd number"),
        (np.array([20240520, 1, 99], "<i4").tobytes() * 9, "begins with the header of llm.c's shards"),
        (None, r"train\.bin cannot be read"),
    ],
)
def test_unusable_files_without_an_index_are_refused(tmp_path, content, message):
    np.arange(100, dtype="<u2").tofile(tmp_path / "val.bin")
    if content is not None:
        (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(InputError, match=message):
        data(tmp_path, vocab_size=2**16).open()


def test_ten_gigabytes_cost_the_memory_map_and_an_order(tmp_path):
    shards = []
    for split, count in (("train", 10), ("val", 1)):
        for number in range(count):
            name = f"{split}-{number:05d}.bin"
            with (tmp_path / name).open("wb") as file:
                file.truncate(10**9)  # a hole: takes no disk
            shards.append(Shard(name, split, 5 * 10**8, 49_999, 1, "0" * 64))
    (tmp_path / INDEX).write_text(Index("s", "", "gpt2-50257", 50257, 9, 9, 9, True, None, tuple(shards)).to_json())
    process = psutil.Process()
    before = process.memory_info().rss
    text = data(tmp_path, vocab_size=50257, block_size=1024).open()
    text.check(1_000, 480)
    assert re.fullmatch("[0-9a-f]{64}", text.hash)
    assert process.memory_info().rss - before < 4 * 2**20
    text.batch(1, 4)
    windows = len(text.train) // 1025
    assert process.memory_info().rss - before < 8 * windows + 8 * 2**20  # 39 MB: one whole number a window


def test_named_corpora_are_looked_for_in_the_cache(tmp_path):
    config = TextData(source="openwebtext", vocab_size=300, block_size=9)
    with pytest.raises(InputError, match="run `decaylab data openwebtext --vocab-size 300` once"):
        config.open(tmp_path)
    make(prepared("openwebtext", 300, tmp_path), [range(50)], [range(50)])
    assert len(config.open(tmp_path).train) == 50
