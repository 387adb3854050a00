import re
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from empirics.data import Text, TextData
from empirics.data.index import Shards, parts
from empirics.data.tokenizer import encoding, tokenise
from empirics.lock import Lock
from theory.errors import InputError
from theory.serialize import content_hash, from_json, to_dict, to_json


@pytest.fixture
def config(tmp_path):
    """Sixty short files; each says its own number many times."""
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} says {i * i}. " * (5 + i % 7))
    return TextData(source=f"text:{tmp_path / 'text'}", vocab_size=300, block_size=8, heldout_every=10, val_windows=20)


def variant(config: TextData, **changes) -> TextData:
    return TextData(**{name: getattr(config, name) for name in config.__dataclass_fields__} | changes)


@pytest.fixture
def text(config, tmp_path):
    return config.open(tmp_path / "cache")


def test_split_by_document(text):
    end = encoding(300).eot_token
    decode = encoding(300).decode

    def documents(tokens):
        parts = np.split(tokens, np.flatnonzero(tokens == end) + 1)
        assert len(parts.pop()) == 0  # every document ends with end-of-text
        return {decode(part[:-1].tolist()) for part in parts}

    train, heldout = documents(text.train), documents(text.heldout)
    assert (len(train), len(heldout)) == (54, 6)
    assert train | heldout == {f"document {i} says {i * i}. " * (5 + i % 7) for i in range(60)}


def test_one_pass_visits_every_window_once(text):
    windows = len(text.train) // 9
    visited = []
    for step in range(windows // 4):
        inputs, targets = text.batch(step, 4)
        assert inputs.shape == targets.shape == (4, 8)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        visited += [(*row.tolist(), last.item()) for row, last in zip(inputs, targets[:, -1], strict=True)]
    in_order = [tuple(row) for row in text.train[: windows * 9].reshape(-1, 9).tolist()]
    unvisited = list(in_order)
    for window in visited:
        unvisited.remove(window)  # raises if it was visited more often than it occurs
    assert len(unvisited) == windows % 4
    assert visited != in_order[: len(visited)]


def test_batches_depend_on_configuration_and_step_only(config, text, tmp_path):
    torch.manual_seed(3)
    again = config.open(tmp_path / "cache")
    for step in (7, 2, 0):
        for ours, theirs in zip(text.batch(step, 4), again.batch(step, 4), strict=True):
            assert torch.equal(ours, theirs)
    # The order does not depend on how it is cut into batches.
    assert torch.equal(text.batch(1, 4)[0], torch.cat([text.batch(2, 2)[0], text.batch(3, 2)[0]]))
    other = variant(config, order_seed=1).open(tmp_path / "cache")
    assert not torch.equal(other.batch(0, 4)[0], text.batch(0, 4)[0])
    assert other.hash == text.hash


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_every_batch_and_never_see_the_same_tokens(text, world):
    seen = {rank: [] for rank in range(world)}
    text = Text(text.config, np.arange(9 * 50, dtype=np.uint16) % 300, text.heldout)
    text.train[:] = np.arange(9 * 50) // 9  # every token says its window
    for step in range(12):
        parts = [text.part(step, 4, rank=rank, world=world) for rank in range(world)]
        for ours, whole in zip(zip(*parts, strict=True), text.batch(step, 4), strict=True):
            assert torch.equal(torch.cat(ours), whole)
        for rank, (inputs, _) in enumerate(parts):
            assert len(inputs) == 4 // world
            seen[rank] += inputs[:, 0].tolist()
    everything = [window for windows in seen.values() for window in windows]
    assert len(everything) == len(set(everything)) == 48


@pytest.mark.parametrize(
    ("rank", "world", "message"),
    [(0, 3, "a multiple of 3"), (2, 2, "below world = 2"), (-1, 2, "rank"), (0, 0, "world")],
)
def test_impossible_shares_are_refused(text, rank, world, message):
    with pytest.raises(InputError, match=message):
        text.part(0, 4, rank=rank, world=world)


def test_hash_of_the_configuration_is_what_it_was():
    """Finished runs keep their directories; `replacement` came later (tests/empirics/test_config.py)."""
    tree = to_dict(TextData())
    assert tree.pop("replacement") is False
    assert content_hash(tree) == "d944230a4cd1aa9cad205819f58a496561539929a6729ffdfd687800de975a62"


def test_with_replacement_windows_begin_anywhere_and_may_come_again(config):
    """60 tokens, windows of 9: 52 places to begin, each as likely, so far more steps than the 6 of one pass."""
    tokens = np.arange(60, dtype=np.uint16)
    text = Text(variant(config, replacement=True, vocab_size=300), tokens, tokens)
    text.check(10**9, 52)
    begin = torch.stack([text.batch(step, 13)[0][:, 0] for step in range(2_000)])
    inputs, targets = text.batch(1_234, 13)
    assert torch.equal(inputs, begin[1_234, :, None] + torch.arange(8))
    assert torch.equal(targets, inputs + 1)
    assert all(len(set(row)) == 13 for row in begin.tolist())  # never twice in one step
    counts = np.bincount(begin.flatten().numpy(), minlength=52)
    assert len(counts) == 52
    # 2,000 steps take each place with probability 1/4: 500 times, standard deviation 19.4; 5 of those for 52 places
    assert np.abs(counts - 500).max() < 97
    again = Text(text.config, tokens, tokens)
    assert torch.equal(again.batch(1_234, 13)[0], inputs)  # a function of seed and step: nothing to resume
    other = Text(variant(text.config, order_seed=1), tokens, tokens)
    assert not torch.equal(other.batch(1_234, 13)[0], inputs)
    assert list(text.fresh(0, 4)) == []
    with pytest.raises(InputError, match=r"batch_size = 53 .* at most 52, where a window can begin"):
        text.check(1, 53)
    with pytest.raises(InputError, match=r"data\.replacement=true would draw windows that may come again"):
        Text(variant(text.config, replacement=False), tokens, tokens).check(7, 1)


def test_with_replacement_ranks_get_different_windows_of_a_step_and_none_crosses_a_shard(config):
    shards = Shards(
        (np.arange(100, 130, dtype=np.uint16), np.arange(5, dtype=np.uint16), np.arange(20, dtype=np.uint16)), ""
    )
    text = Text(variant(config, replacement=True), shards, shards)
    places = set(range(100, 122)) | set(range(12))  # 30 - 8 and 20 - 8; the second shard is shorter than a window
    seen = set()
    for step in range(60):
        parts = [text.part(step, 12, rank=rank, world=3)[0] for rank in range(3)]
        assert torch.equal(torch.cat(parts), text.batch(step, 12)[0])
        begin = torch.cat(parts)[:, 0].tolist()
        assert len(set(begin)) == 12
        assert torch.equal(torch.cat(parts).diff(), torch.ones(12, 7, dtype=torch.int64))
        seen |= set(begin)
    assert seen == places


def test_parquet_documents_become_shards_in_the_cache_once(config, tmp_path, monkeypatch):
    documents = [f"document {i} says {i * i}. " * 6 for i in range(60)]
    (tmp_path / "tables").mkdir()
    pd.DataFrame({"text": documents}).to_parquet(tmp_path / "tables" / "0.parquet")
    there = variant(config, source=f"parquet:{tmp_path / 'tables'}")
    text = there.open(tmp_path / "cache")
    both = np.concatenate([*parts(text.train), *parts(text.heldout)])
    wanted = tokenise(documents, 300)
    assert sorted(both.tolist()) == sorted(wanted.tolist())
    assert min(len(text.train), len(text.heldout)) > 0
    monkeypatch.setattr("empirics.data.shards._encoded", None)
    assert there.open(tmp_path / "cache").hash == text.hash
    monkeypatch.undo()
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "index.json").unlink()
    for shard in folder.glob("*.bin"):
        shard.unlink()
    monkeypatch.setattr("empirics.data.text.PATIENCE", 0.05)
    lock = Lock(folder)  # another rank that is tokenising them
    threading.Timer(0.2, lock.release).start()
    assert there.open(tmp_path / "cache").hash == text.hash
    with pytest.raises(InputError, match="a folder that exists"):
        variant(config, source=f"parquet:{tmp_path / 'nowhere'}").open(tmp_path / "cache")


def test_end_of_the_pass_is_refused_with_the_missing_tokens(text):
    windows = len(text.train) // 9
    text.check(windows // 4, 4)
    text.batch(windows // 4 - 1, 4)
    steps = windows // 4 + 3
    with pytest.raises(InputError, match=re.escape(f"{(steps * 4 - windows) * 9} tokens are missing")):
        text.check(steps, 4)
    with pytest.raises(InputError, match="tokens are missing"):
        text.batch(windows // 4, 4)
    with pytest.raises(InputError, match="batch_size"):
        text.check(1, 0)


def test_validation_is_fixed_and_spread(config, text):
    first, second = list(text.validation(8)), list(text.validation(8))
    assert [len(inputs) for inputs, _ in first] == [8, 8, 4]
    for (inputs, targets), (again, _) in zip(first, second, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
    rows = text.heldout[: len(text.heldout) // 9 * 9].reshape(-1, 9)[:, :8]
    positions = [int(np.flatnonzero((rows == row.numpy()).all(1))[0]) for inputs, _ in first for row in inputs]
    assert min(positions) == 0
    assert max(positions) >= len(rows) * 0.9
    everything = sum(
        len(inputs) for inputs, _ in Text(variant(config, val_windows=10**6), text.train, text.heldout).validation(7)
    )
    assert everything == len(rows)


def test_fresh_windows_are_the_next_ones(text):
    fresh = torch.cat([inputs for inputs, _ in text.fresh(12, 8)])
    assert torch.equal(fresh[:8], torch.cat([text.batch(3, 4)[0], text.batch(4, 4)[0]]))
    windows = len(text.train) // 9
    assert len(fresh) == 20
    assert [len(inputs) for inputs, _ in text.fresh(windows - 3, 2)] == [2, 1]
    assert list(text.fresh(windows, 2)) == []


def test_tokens_per_step(text):
    assert text.tokens_per_step(5) == 40


def test_cache(config, text, tmp_path, monkeypatch):
    (file,) = (tmp_path / "cache").iterdir()
    damaged = bytearray(file.read_bytes())
    monkeypatch.setattr("empirics.data.text.tokenise", lambda *_: pytest.fail("tokenised again"))
    assert np.array_equal(config.open(tmp_path / "cache").train, text.train)
    monkeypatch.undo()
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert np.array_equal(config.open(tmp_path / "cache").heldout, text.heldout)
    other = variant(config, vocab_size=280).open(tmp_path / "cache")
    assert int(other.train.max()) == 279
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_hash_follows_the_content(config, text, tmp_path):
    same = variant(config, source=f"text:{tmp_path / 'renamed'}")
    (tmp_path / "text").rename(tmp_path / "renamed")
    assert same.open(tmp_path / "cache").hash == text.hash
    (tmp_path / "renamed" / "3.txt").write_text("document 3 says something else")
    assert same.open(tmp_path / "cache").hash != text.hash
    assert re.fullmatch("[0-9a-f]{64}", text.hash)
    changed = text.train.copy()
    changed[0] ^= 1
    split_elsewhere = np.split(np.concatenate([text.train, text.heldout]), [len(text.train) - 9])
    for tokens in ((changed, text.heldout), (text.train, text.heldout[1:]), split_elsewhere):
        assert Text(config, *tokens).hash != text.hash


def test_nanogpt_bin(tmp_path):
    train, val = np.arange(100, dtype=np.uint16), np.arange(50, 80, dtype=np.uint16)
    train.tofile(tmp_path / "train.bin")
    val.tofile(tmp_path / "val.bin")
    config = TextData(source=f"bin:{tmp_path}", vocab_size=100, block_size=9)
    text = config.open()
    inputs, targets = (torch.cat(parts) for parts in zip(*(text.batch(step, 2) for step in range(5)), strict=True))
    assert sorted(inputs[:, 0].tolist()) == list(range(0, 100, 10))
    assert torch.equal(targets, inputs + 1)
    assert torch.cat([inputs[:, 0] for inputs, _ in text.validation(2)]).tolist() == [50, 60, 70]
    with pytest.raises(InputError, match="at least 100"):
        variant(config, vocab_size=99).open()
    (tmp_path / "val.bin").unlink()
    with pytest.raises(InputError, match=r"val\.bin cannot be read"):
        config.open()


def test_special_tokens_in_the_text_are_text():
    assert tokenise(["<|endoftext|>"], 300).tolist().count(299) == 1


def test_python_corpus_feeds_six_thousand_steps(tmp_path):
    text = TextData().open(tmp_path)
    text.check(6_000, 8)
    assert len(text.heldout) > 512 * 65
    blank = encoding(1024).encode_single_token(" ")
    assert float((text.train == blank).mean()) < 0.1  # the indentation is tabs


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "pyton"),
        ("source", "text:"),
        ("source", "python:x"),
        ("vocab_size", 256),
        ("vocab_size", 50258),
        ("vocab_size", "1024"),
        ("block_size", 0),
        ("heldout_every", 1),
        ("order_seed", -1),
        ("val_windows", 0),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        TextData(**{field: value})


def test_packages_need_python():
    with pytest.raises(InputError, match="packages"):
        TextData(source="text:somewhere", packages=True)


def test_too_little_text_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="holds 60 documents, but heldout_every = 61"):
        variant(config, heldout_every=61).open(tmp_path / "cache")
    with pytest.raises(InputError, match="fewer than one window of block_size"):
        variant(config, block_size=10**6).open(tmp_path / "cache")


def test_json_round_trip(config):
    assert from_json(to_json(config)) == config
