import json

import pytest

from decaylab.cli import main
from empirics.data import TextData


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(40):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} says {i * i}. " * 6)
    return f"text:{tmp_path / 'text'}"


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["data", *map(str, arguments)])
    return stop.value.code


def test_tokenises_and_says_how_to_train(text, tmp_path, capsys):
    options = ("--out", tmp_path / "out", "--vocab-size", 300, "--heldout-every", 4, "--workers", 1)
    assert run(text, *options, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    opened = TextData(source=out["source"], vocab_size=300, block_size=8).open()
    assert len(opened.train) == out["train_tokens"]
    assert len(opened.heldout) == out["val_tokens"]
    assert out["documents"] == 40
    assert run(text, *options, "--verify") == 0
    assert f"--set data.source=bin:{tmp_path / 'out'} data.vocab_size=300" in capsys.readouterr().out


def test_misuse_is_one_sentence(text, tmp_path, capsys):
    assert run(text) == 2
    assert "--out must be given" in capsys.readouterr().err
    assert run("openwebtex", "--out", tmp_path) == 2
    assert "'openwebtex' is not allowed" in capsys.readouterr().err


def test_help(capsys):
    assert run("--help") == 0
    assert "--json" in capsys.readouterr().out
