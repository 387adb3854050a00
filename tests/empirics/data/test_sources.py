import builtins
import doctest
import json
from types import SimpleNamespace

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from empirics.data import ImageData, hub, ranks, sources
from empirics.data.corpus import python_sources
from empirics.data.shards import prepare
from empirics.data.sources import documents
from theory.errors import InputError


@pytest.mark.parametrize("module", [sources, ranks])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0


def everything(source, skip=0):
    return list(documents(source).begin(skip))


def test_parquet_can_be_entered_anywhere(tmp_path):
    texts = [f"text {i}" for i in range(700)]
    texts[5] = None
    (tmp_path / "sub").mkdir()
    for name, part in (("a", texts[:300]), ("b", texts[300:310]), ("sub/c", texts[310:])):
        pq.write_table(
            pa.table({"id": range(len(part)), "text": part}), tmp_path / f"{name}.parquet", row_group_size=90
        )
    found = documents(f"parquet:{tmp_path}")
    assert found.total() == 700
    expected = [text or "" for text in texts]
    for skip in (0, 1, 255, 256, 257, 300, 305, 310, 699, 700):
        assert list(found.begin(skip)) == expected[skip:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"words": ["a"]}), "has no column 'text' of strings: its columns are words"),
        (pa.table({"text": [1]}), "has no column 'text' of strings"),
        (None, "cannot be read as parquet"),
    ],
)
def test_unusable_parquet_is_refused(tmp_path, table, message):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"not parquet") if table is None else pq.write_table(table, file)
    with pytest.raises(InputError, match=message):
        documents(f"parquet:{tmp_path}")


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_missing_and_empty_folders_are_refused(tmp_path, kind):
    with pytest.raises(InputError, match="the path of a folder that exists"):
        documents(f"{kind}:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match=r"a folder with \*\."):
        documents(f"{kind}:{tmp_path}")


@pytest.mark.parametrize("source", ["openwebtex", "text:", "parquet", "bin:somewhere"])
def test_unknown_sources_are_refused(source):
    with pytest.raises(InputError, match="one of openwebtext, wikitext, fineweb-edu, python, parquet:DIR or text:DIR"):
        documents(source)


def test_text_folders_stream_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("one", "half \ud800", "one"))
    )
    (tmp_path / "c.md").write_text("no text")
    assert everything(f"text:{tmp_path}") == ["one", "half \ufffd", "one", "second"]
    assert everything(f"text:{tmp_path}", 2) == ["one", "second"]
    before = documents(f"text:{tmp_path}").fingerprint
    (tmp_path / "c.md").write_text("still no text")
    assert documents(f"text:{tmp_path}").fingerprint == before
    (tmp_path / "b.txt").write_text("another")
    assert documents(f"text:{tmp_path}").fingerprint != before


def test_python_sources():
    assert everything("python", 3) == python_sources()[3:]


# ------------------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("streaming", [True, False])
def test_offline_is_one_sentence_with_a_way_out(offline, tmp_path, streaming):
    with pytest.raises(InputError) as error:
        prepare("fineweb-edu", tmp_path / "out", streaming=streaming)
    text = str(error.value)
    assert "cannot be read from huggingface.co/datasets/HuggingFaceFW/fineweb-edu" in text
    assert "copy the data set's parquet files here and give parquet:DIR" in text
    assert "\n" not in text


def test_offline_images(offline):
    with pytest.raises(InputError, match=r"'cifar10' cannot be read from huggingface\.co/datasets/uoft-cs/cifar10"):
        ImageData(source="cifar10").open()


def test_without_the_package(monkeypatch):
    original = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(InputError, match="needs the package datasets: pip install datasets, or give parquet:DIR"):
        everything("openwebtext")


def test_rows_of_the_hub_can_be_entered_anywhere(monkeypatch):
    rows = datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(9)]})
    asked = []

    def load(repository, name, **options):
        asked.append((repository, name, options))
        return rows.to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = documents("fineweb-edu")
    assert asked == []  # not before it is needed
    assert list(found.begin(4)) == [f"text {i}" for i in range(4, 9)]
    assert found.total() is None
    assert asked == [("HuggingFaceFW/fineweb-edu", "sample-10BT", {"split": "train", "streaming": True})]


def test_wikitext_becomes_articles(monkeypatch):
    lines = ["", " = Cats = \n", "", " Mice . \n", " = = Diet = = \n", " = Dogs = \n", " Bones . \n"]
    rows = datasets.Dataset.from_dict({"text": lines})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows.to_iterable_dataset())
    assert everything("wikitext") == ["", " = Cats = \n Mice . \n = = Diet = = \n", " = Dogs = \n Bones . \n"]
    assert everything("wikitext", 2) == [" = Dogs = \n Bones . \n"]


def test_data_sets_that_are_scripts_are_read_as_the_hub_converted_them(monkeypatch):
    def load(repository, name, *, split, streaming, revision=None):
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found openwebtext.py")
        return SimpleNamespace(revision=revision)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert hub.load("openwebtext", "train").revision == "refs/convert/parquet"


def test_a_connection_that_breaks_later_is_the_same_sentence(monkeypatch):
    class Breaks:
        info = SimpleNamespace(splits=None)

        def skip(self, count):
            yield {"text": "fine"}
            raise ConnectionError("reset by peer\nand more")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Breaks())
    texts = documents("openwebtext").begin(0)
    assert next(texts) == "fine"
    with pytest.raises(InputError, match=r"\(reset by peer\): run this once where there is a network"):
        next(texts)
