import hashlib
import io
import multiprocessing
import os
import random
import signal
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from empirics.data import shards
from empirics.data.index import INDEX, check_files, read_index
from empirics.data.shards import prepare
from empirics.data.sources import Documents
from empirics.data.tokenizer import encoding
from empirics.files import DiskFullError
from empirics.interrupt import Interrupted
from theory.errors import InputError

TEXTS = [f"document {i} says {i * i}. " * (3 + i % 7) for i in range(120)]
SETTINGS = {"vocab_size": 300, "heldout_every": 5, "shard_tokens": 2_000, "workers": 2}


def console():
    return Console(file=io.StringIO(), force_terminal=False)


def stream(texts=TEXTS, pause=0.0):
    """A source of given texts, some seconds apart."""

    def begin(skip):
        for text in texts[skip:]:
            time.sleep(pause)
            yield text

    return lambda source, streaming=True: Documents(source, "given", lambda: len(texts), begin)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(shards, "documents", stream())
    monkeypatch.setattr(shards, "TASK", 1_000)  # some documents a task, some tasks a shard


def write(folder, **changes):
    return prepare("given", folder, **(SETTINGS | {"console": console()} | changes))


@pytest.fixture
def whole(tmp_path):
    """The shards of an undisturbed run."""
    return write(tmp_path / "whole")


def read(folder, index, split):
    return np.concatenate([np.fromfile(folder / shard.file, "<u2") for shard in index.of(split)])


def test_shards_are_headerless_tokens_of_the_documents_split_by_their_hash(whole, tmp_path):
    encoder = encoding(300)
    for split, heldout in (("train", False), ("val", True)):
        chosen = [
            text
            for text in TEXTS
            if (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 5 == 0) == heldout
        ]
        expected = [token for text in chosen for token in [*encoder.encode_ordinary(text), 299]]
        assert read(tmp_path / "whole", whole, split).tolist() == expected
        assert whole.tokens(split) == len(expected)
        assert sum(shard.documents for shard in whole.of(split)) == len(chosen)
    assert [shard.file for shard in whole.of("train")] == [f"train-{i:05d}.bin" for i in range(len(whole.of("train")))]
    assert len(whole.of("train")) > 5
    assert all(2_000 <= shard.tokens < 2_500 for shard in whole.of("train")[:-1])  # the longest document has < 500
    assert (whole.consumed, whole.complete, whole.encoding) == (120, True, "gpt2-300")
    assert read_index(tmp_path / "whole") == whole
    check_files(tmp_path / "whole", whole, contents=True)
    names = {shard.file for shard in whole.shards} | {INDEX}
    assert {file.name for file in (tmp_path / "whole").iterdir()} == names


def test_the_number_of_workers_does_not_matter(whole, tmp_path):
    assert write(tmp_path / "one", workers=1) == whole


def test_killed_at_any_moment_it_goes_on_to_the_same_shards(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "documents", stream(pause=0.02))
    folder, moments = tmp_path / "killed", random.Random(0)
    seen = 0
    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=write, args=(folder,))
        process.start()
        while process.is_alive():  # at least one more shard, so that two kills do not start over twice
            index = read_index(folder) if folder.is_dir() else None
            if index is not None and len(index.of("train")) > seen:
                break
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.003))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        index = read_index(folder)
        check_files(folder, index, contents=True)
        seen = len(index.of("train"))
    assert 0 < index.consumed < 120
    reads = []
    monkeypatch.setattr(shards, "documents", lambda *_, **__: Documents("given", "given", lambda: 120, begin))

    def begin(skip):
        reads.append(skip)
        return iter(TEXTS[skip:])

    assert write(folder) == whole
    assert reads == [index.consumed]
    names = {shard.file for shard in whole.shards} | {INDEX}
    assert {file.name for file in folder.iterdir()} == names  # nothing of the killed runs is left


@pytest.mark.parametrize("writes", [2, 4])
def test_stopped_between_a_shard_and_the_index(whole, tmp_path, monkeypatch, writes):
    done, original = [], shards.write_atomic

    def fails(path, data):
        done.append(path)
        if len(done) == writes:
            raise OSError("power failure")
        original(path, data)

    monkeypatch.setattr(shards, "write_atomic", fails)
    with pytest.raises(OSError, match="power failure"):
        write(tmp_path / "out")
    monkeypatch.setattr(shards, "write_atomic", original)
    assert len(read_index(tmp_path / "out").of("train")) == writes - 2
    assert write(tmp_path / "out") == whole


def test_interrupt_says_what_is_kept(whole, tmp_path, monkeypatch):
    def begin(skip):
        for number, text in enumerate(TEXTS[skip:], start=skip):
            if number == 90:
                os.kill(os.getpid(), signal.SIGINT)
            yield text

    monkeypatch.setattr(shards, "documents", lambda *_, **__: Documents("given", "given", lambda: None, begin))
    with pytest.raises(Interrupted) as stop:
        write(tmp_path / "out")
    index = read_index(tmp_path / "out")
    assert stop.value.code == 130
    assert f"keeps {index.consumed} documents in {len(index.shards)} shards" in str(stop.value)
    monkeypatch.setattr(shards, "documents", stream())
    assert write(tmp_path / "out") == whole


def test_full_disk_keeps_what_was_finished(whole, tmp_path, monkeypatch):
    calls, original = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError, match="The disk is full"):
        write(tmp_path / "out")
    monkeypatch.undo()
    assert not list((tmp_path / "out").glob(".*"))
    index = read_index(tmp_path / "out")
    assert 0 < index.consumed < 120
    check_files(tmp_path / "out", index, contents=True)
    monkeypatch.setattr(shards, "documents", stream())
    assert write(tmp_path / "out") == whole


def test_a_finished_folder_is_not_made_again(whole, tmp_path, monkeypatch):
    never = Documents("given", "given", lambda: pytest.fail("asked"), lambda skip: pytest.fail("read again"))
    monkeypatch.setattr(shards, "documents", lambda *_, **__: never)
    assert write(tmp_path / "whole") == whole
    (tmp_path / "whole" / "train-00001.bin").unlink()
    with pytest.raises(InputError, match=r"train-00001\.bin is missing"):
        write(tmp_path / "whole")


def test_limit_and_more_later(whole, tmp_path):
    few = write(tmp_path / "out", tokens=3_000)
    assert few.complete
    assert 3_000 <= few.tokens("train") < 3_500
    assert write(tmp_path / "out", tokens=3_000) == write(tmp_path / "out", tokens=100) == few
    more = write(tmp_path / "out", tokens=6_000)
    assert more.shards[: len(few.shards)] == few.shards
    assert 6_000 <= more.tokens("train") < 6_500
    everything = write(tmp_path / "out")
    assert everything.limit is None
    for split in ("train", "val"):
        assert np.array_equal(read(tmp_path / "out", everything, split), read(tmp_path / "whole", whole, split))
    assert write(tmp_path / "out", tokens=10**9) == everything


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 301}, "encoding are gpt2-301, not gpt2-300"),
        ({"heldout_every": 6}, "heldout_every are 6, not 5"),
        ({"shard_tokens": 1_000}, "shard_tokens are 1000, not 2000"),
    ],
)
def test_other_settings_are_refused(whole, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "whole", **changes)


def test_other_documents_are_refused(whole, tmp_path, monkeypatch):
    other = replace(stream()("given"), fingerprint="other")
    monkeypatch.setattr(shards, "documents", lambda *_, **__: other)
    with pytest.raises(InputError, match="the documents of source are other ones than 'given' had"):
        write(tmp_path / "whole")


def test_a_folder_with_other_tokens_is_left_alone(tmp_path):
    (tmp_path / "train-00000.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds train-00000\.bin but no index"):
        write(tmp_path)
    assert (tmp_path / "train-00000.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_empty_corpus_is_refused(tmp_path, monkeypatch, texts):
    monkeypatch.setattr(shards, "documents", stream(texts))
    with pytest.raises(InputError, match=f"holds no text in {len(texts)} documents"):
        write(tmp_path)


def test_nothing_held_out_is_refused_and_can_be_mended_in_place(tmp_path):
    with pytest.raises(InputError, match="smaller, as none of the 120 documents fell to val"):
        write(tmp_path, heldout_every=10**6, shard_tokens=10**6)
    assert write(tmp_path, shard_tokens=10**6).tokens("val") > 0


@pytest.mark.parametrize("field", ["heldout_every", "shard_tokens", "workers", "tokens", "vocab_size"])
def test_bad_numbers_are_refused(tmp_path, field):
    with pytest.raises(InputError, match=field):
        write(tmp_path, **{field: 0})


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    text = "a line of text that is some sixty characters long, or so. \n" * 20
    peaks = []
    for count in (500, 2_500):
        begin = lambda skip, count=count: (f"{i} {text}" for i in range(skip, count))
        monkeypatch.setattr(shards, "documents", lambda *_, b=begin, **__: Documents("s", "s", lambda: None, b))
        tracemalloc.start()
        write(tmp_path / str(count), shard_tokens=10**9)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000  # the texts are 0.6 MB and 3 MB, the tokens 1 MB and 5 MB


def test_progress(tmp_path):
    plain, terminal = console(), Console(file=io.StringIO(), force_terminal=True, width=120)
    index = write(tmp_path / "plain", console=plain)
    lines = plain.file.getvalue().splitlines()
    assert len(lines) == len(index.of("train"))
    assert f"{len(index.shards)} shards, 120 documents" in lines[-1]
    write(tmp_path / "bar", console=terminal)
    assert "120/120" in terminal.file.getvalue()
    assert "tokens" in terminal.file.getvalue()
