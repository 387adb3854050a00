import argparse
import hashlib
import inspect
import json
import lzma
import sysconfig

import pytest

from empirics.data.corpus import folder, python_sources, tabs
from theory.errors import InputError


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A make-believe interpreter with files that belong in the corpus and files that do not."""
    files = {
        "lib/os.py": "import sys\n",
        "lib/copy_of_os.py": "import sys\n",
        "lib/json/decoder.py": "if 1:\n    pass\n",
        "lib/empty.py": "",
        "lib/testing.py": "kept = 'the name only resembles test'\n",
        "lib/test/test_os.py": "excluded = 1\n",
        "lib/json/tests/a.py": "excluded = 2\n",
        "lib/idlelib/idle_test/b.py": "excluded = 3\n",
        "lib/site-packages/inner.py": "excluded = 4\n",
        "lib/data.txt": "excluded = 5\n",
        "site/pandas/core.py": "from_package = 1\n",
        "site/pandas/tests/test_core.py": "excluded = 6\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = {"stdlib": str(tmp_path / "lib"), "purelib": str(tmp_path / "site"), "platlib": str(tmp_path / "site")}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)


def test_standard_library_without_tests_and_duplicates(interpreter):
    expected = ["import sys\n", "if 1:\n\tpass\n", "kept = 'the name only resembles test'\n"]
    assert python_sources() == sorted(expected, key=lambda text: hashlib.sha256(text.encode()).digest())


def test_packages_are_optional(interpreter):
    assert set(python_sources(packages=True)) - set(python_sources()) == {"from_package = 1\n"}


def test_this_interpreter():
    documents = python_sources()
    assert tabs(inspect.getsource(argparse)) in documents
    assert len(documents) == len(set(documents)) > 500


def test_tabs_only_replace_leading_runs_of_four():
    assert tabs("    a\n      b    c\n   d\n\t    e\n        \n") == "\ta\n\t  b    c\n   d\n\t    e\n\t\t\n"


def test_folder_reads_every_kind(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("    plain")
    (tmp_path / "sub" / "b.py").write_text("    code")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one", "two", "one")))
    (tmp_path / "d.jsonl.xz").write_bytes(lzma.compress(b'{"text": "packed", "id": 3}\n'))
    (tmp_path / "e.md").write_text("ignored")
    documents = folder(tmp_path)
    assert sorted(documents) == sorted(["    plain", "\tcode", "one", "two", "packed"])
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in documents]
    assert hashes == sorted(hashes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": 3}\n', "line 2 has no string under the key 'text'"),
        ("a.jsonl", b"[1]\n", "line 1 has no string"),
        ("a.jsonl", b'{"text": \n', "line 1 is not JSON"),
        ("a.jsonl", b"\xff\xfe\n", "cannot be read"),
        ("a.jsonl.xz", b"not xz", "cannot be read"),
        ("a.jsonl.xz", lzma.compress(b'{"text": "cut short"}\n' * 99)[:-9], "cannot be read"),
        ("a.md", b"", "must be a folder with"),
    ],
)
def test_unusable_folders_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        folder(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="the path of a folder that exists"):
        folder(tmp_path / "nowhere")
