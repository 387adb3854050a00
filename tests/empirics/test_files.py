import errno
import os

import pytest

from empirics import files
from empirics.files import DiskFullError, write_atomic


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_text_and_bytes_replace_what_was_there(tmp_path):
    write_atomic(tmp_path / "a", "ä")
    assert (tmp_path / "a").read_bytes() == "ä".encode()
    write_atomic(tmp_path / "a", b"\x00")
    assert (tmp_path / "a").read_bytes() == b"\x00"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_on_a_full_disk_the_old_file_stays_and_the_sentence_names_it(tmp_path, monkeypatch, moment):
    write_atomic(tmp_path / "a", "old")
    monkeypatch.setattr(files.os, moment, full_disk)
    with pytest.raises(DiskFullError, match=r"The disk is full: .*/a could not be written"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "a", "x")
