"""Documents as a stream in a fixed order that can be entered anywhere, so that whoever reads it need not start over."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from empirics.data import hub
from empirics.data.corpus import folder_stream, python_sources, text_files
from theory.errors import InputError, require


@dataclass(frozen=True)
class Documents:
    """A stream of texts."""

    source: str
    """What was asked for."""
    fingerprint: str
    """SHA-256 of all that is known of the contents without reading them: names and sizes of files, or the hub's name.
    The interpreter's own sources are read."""
    total: Callable[[], int | None]
    """How many there are, if that is known; the hub is asked."""
    begin: Callable[[int], Iterator[str]]
    """Reads on after so many documents."""


def documents(source: str, *, streaming: bool = True) -> Documents:
    """Open a stream of documents.

    Args:
        source: openwebtext, wikitext or fineweb-edu (from the hub), parquet:DIR (column text), text:DIR (*.txt, *.py,
            *.jsonl, *.jsonl.xz) or python (the interpreter's own sources).
        streaming: For the hub: read over the network as needed; otherwise from the cache of `datasets`.

    Returns:
        The stream; only python is held in memory.

    Raises:
        InputError: If there is no such source, it is empty, or cannot be reached.
    """
    kind, _, path = source.partition(":")
    if source in hub.TEXTS:
        return _from_hub(source, streaming=streaming)
    if source == "python":
        texts = python_sources()
        hashes = "".join(hashlib.sha256(text.encode()).hexdigest() for text in texts)
        return Documents(source, _digest(hashes), lambda: len(texts), lambda skip: iter(texts[skip:]))
    known = kind in ("parquet", "text") and path != ""
    require(known, "source", source, f"one of {', '.join(hub.TEXTS)}, python, parquet:DIR or text:DIR")
    files = _parquet_files(Path(path)) if kind == "parquet" else text_files(Path(path))
    listing = "\n".join(f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files)
    if kind == "text":
        return Documents(source, _digest(listing), lambda: None, lambda skip: islice(folder_stream(files), skip, None))
    total = sum(_open_parquet(file).metadata.num_rows for file in files)
    return Documents(source, _digest(listing), lambda: total, lambda skip: _parquet_texts(files, skip))


def articles(rows: Iterable[str]) -> Iterator[str]:
    r"""Put WikiText's lines together to articles, which begin with a heading of the first level.

    Args:
        rows: Lines.

    Yields:
        Articles.

    Example:
        >>> list(articles([" = Cats = \n", " = = Diet = = \n", " Mice . \n", " = Dogs = \n"]))
        [' = Cats = \n = = Diet = = \n Mice . \n', ' = Dogs = \n']
    """
    article: list[str] = []
    for row in rows:
        if article and re.fullmatch(r" = (?!=).*(?<!=) = \n?", row):
            yield "".join(article)
            article = []
        article.append(row)
    if article:
        yield "".join(article)


def _from_hub(source: str, *, streaming: bool) -> Documents:
    opened = cache(lambda: hub.load(source, "train", streaming=streaming))  # not asked if everything is there already
    lines = source == "wikitext"  # a row is a line there

    def begin(skip: int) -> Iterator[str]:
        rows = opened() if lines else opened().skip(skip)
        try:
            texts = (row["text"] for row in rows)
            yield from islice(articles(texts), skip, None) if lines else texts
        except Exception as error:  # whatever its HTTP library raises, hours into the stream
            raise hub.unreachable(source, error) from None

    def total() -> int | None:
        splits = getattr(opened().info, "splits", None)
        return splits["train"].num_examples if splits and "train" in splits and not lines else None

    return Documents(source, _digest(" ".join(map(str, hub.TEXTS[source]))), total, begin)


def _parquet_files(folder: Path) -> list[Path]:
    require(folder.is_dir(), "source", f"parquet:{folder}", "the path of a folder that exists")
    files = sorted(folder.rglob("*.parquet"))
    require(bool(files), "source", f"parquet:{folder}", "a folder with *.parquet files")
    return files


def _open_parquet(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read as parquet: {error}.") from None
    column = next((field for field in opened.schema_arrow if field.name == "text"), None)
    if column is None or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        names = ", ".join(opened.schema_arrow.names)
        raise InputError(f"{file} has no column 'text' of strings: its columns are {names}.")
    return opened


def _parquet_texts(files: list[Path], skip: int) -> Iterator[str]:
    import pyarrow as pa

    for file in files:
        opened = _open_parquet(file)
        if skip >= opened.metadata.num_rows:
            skip -= opened.metadata.num_rows
            continue
        try:
            for batch in opened.iter_batches(batch_size=256, columns=["text"]):
                yield from (text or "" for text in batch.column(0).slice(skip).to_pylist())
                skip = max(skip - len(batch), 0)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file} cannot be read: {error}.") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
