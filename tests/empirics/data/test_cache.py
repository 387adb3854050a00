import pytest

from empirics.data.cache import cached, default_cache, write_atomically


def test_built_once_then_read(tmp_path):
    file = tmp_path / "deep" / "payload.bin"
    assert cached(file, lambda: b"tokens") == b"tokens"
    assert cached(file, lambda: pytest.fail("built again")) == b"tokens"


def damage_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [damage_bit, lambda c: c[:-1], lambda c: c + b"x", lambda c: c[:10], lambda c: b""])
def test_damaged_file_is_rebuilt(tmp_path, damage):
    file = tmp_path / "payload.bin"
    cached(file, lambda: b"tokens")
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert cached(file, lambda: b"tokens") == b"tokens"
    assert file.read_bytes() == good


def test_empty_payload(tmp_path):
    cached(tmp_path / "empty", lambda: b"")
    assert cached(tmp_path / "empty", lambda: pytest.fail("built again")) == b""


def test_unwritable_cache_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be written"):
        assert cached(tmp_path / "file" / "payload.bin", lambda: b"tokens") == b"tokens"


def test_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    file = tmp_path / "payload.bin"
    write_atomically(file, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_readers_of_the_previous_file_are_not_disturbed(tmp_path):
    file = tmp_path / "payload.bin"
    write_atomically(file, b"old")
    with file.open("rb") as reader:
        write_atomically(file, b"new")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DECAYLAB_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("DECAYLAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "decaylab"
