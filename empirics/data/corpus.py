"""Documents: the Python sources that every interpreter brings along, or text files of a folder."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from theory.errors import InputError, require

EXCLUDED = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
ENDINGS = (".txt", ".py", ".jsonl", ".jsonl.xz")
ALLOWED = "a folder with *.txt, *.py, *.jsonl or *.jsonl.xz files"


def python_sources(*, packages: bool = False) -> list[str]:
    """Source files of the running interpreter's standard library, without its tests.

    Args:
        packages: Add the sources of the installed packages.

    Returns:
        Documents, deduplicated and ordered by the hash of their content; each run of four leading blanks is a tab,
        or most tokens would be blanks.
    """
    paths = sysconfig.get_paths()
    roots = {Path(paths["stdlib"])} | ({Path(paths["purelib"]), Path(paths["platlib"])} if packages else set())
    files = (path for root in roots for path in root.rglob("*.py") if not EXCLUDED & set(path.relative_to(root).parts))
    return _ordered(_read(path) for path in files if path.is_file())


def folder(path: Path) -> list[str]:
    """Documents of a folder: each *.txt and *.py file, and each line (key `text`) of *.jsonl and *.jsonl.xz files.

    Args:
        path: The folder; its sub-folders are read too.

    Returns:
        Documents, deduplicated and ordered by the hash of their content.

    Raises:
        InputError: If the folder or a file cannot be read, or nothing is in it.
    """
    documents = _ordered(folder_stream(text_files(path)))
    require(bool(documents), "source", f"text:{path}", ALLOWED)
    return documents


def text_files(path: Path) -> list[Path]:
    """Files of a folder that hold documents.

    Args:
        path: The folder; its sub-folders are searched too.

    Returns:
        Files, in the order of their paths.

    Raises:
        InputError: If there is no such folder or nothing is in it.
    """
    require(path.is_dir(), "source", f"text:{path}", "the path of a folder that exists")
    files = [file for file in sorted(path.rglob("*")) if file.name.endswith(ENDINGS) and file.is_file()]
    require(bool(files), "source", f"text:{path}", ALLOWED)
    return files


def folder_stream(files: Iterable[Path]) -> Iterator[str]:
    """Documents of some files, one at a time.

    Args:
        files: As from `text_files`.

    Yields:
        Documents, as they come: neither ordered nor deduplicated.

    Raises:
        InputError: If a file cannot be read.
    """
    for file in files:
        yield from _documents(file)


def _documents(file: Path) -> Iterator[str]:
    if file.suffix in (".txt", ".py"):
        yield _read(file)
    elif file.name.endswith((".jsonl", ".jsonl.xz")):
        opener = lzma.open if file.suffix == ".xz" else open
        try:
            with opener(file, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    yield _text_of(line, f"{file}, line {number}")
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}.") from None


def _text_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error}).") from None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise InputError(f"{where} has no string under the key 'text'.")
    return _without_surrogates(record["text"])


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
        return text
    except UnicodeEncodeError:  # JSON may hold half a character, which no encoding has
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    return tabs(text) if file.suffix == ".py" else text


def tabs(source: str) -> str:
    r"""Replace each run of four leading blanks by a tab.

    Args:
        source: Python source.

    Returns:
        The same program, shorter.

    Example:
        >>> tabs("def f():\n        return     1")
        'def f():\n\t\treturn     1'
    """
    return re.sub(r"^(?: {4})+", lambda blanks: "\t" * (len(blanks[0]) // 4), source, flags=re.MULTILINE)


def _ordered(documents: Iterable[str]) -> list[str]:
    by_hash = {hashlib.sha256(text.encode()).digest(): text for text in documents if text}
    return [by_hash[key] for key in sorted(by_hash)]
