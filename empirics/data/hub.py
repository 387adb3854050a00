"""Data sets of the Hugging Face hub, through `datasets`; what goes wrong there becomes one sentence."""

from __future__ import annotations

from typing import Any

from theory.errors import InputError

TEXTS = {
    "openwebtext": ("Skylion007/openwebtext", None),
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
}
"""Repository and configuration by the name that `decaylab data` takes; each has a split train with a column text."""
IMAGES = {"cifar10": ("uoft-cs/cifar10", None), "cifar100": ("uoft-cs/cifar100", None)}
"""The same for images; each has splits train and test."""
CONVERTED = "refs/convert/parquet"
"""The hub's own conversion of data sets that are scripts, which `datasets` no longer runs."""


def load(source: str, split: str, *, streaming: bool = False) -> Any:
    """Open a split of a data set by our name for it.

    Args:
        source: One of `TEXTS` or `IMAGES`.
        split: train or test.
        streaming: Read it over the network as needed; otherwise it is downloaded into the cache of `datasets`, or taken
            from there, which needs no network.

    Returns:
        A `datasets` data set.

    Raises:
        InputError: If `datasets` is not installed or the data set can neither be reached nor is in its cache.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"source = {source!r} needs the package datasets: pip install datasets, or give parquet:DIR."
        ) from None
    repository, name = (TEXTS | IMAGES)[source]
    try:
        try:
            return datasets.load_dataset(repository, name, split=split, streaming=streaming)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            return datasets.load_dataset(repository, name, split=split, streaming=streaming, revision=CONVERTED)
    except Exception as error:  # whatever its HTTP library raises
        raise unreachable(source, error) from None


def unreachable(source: str, error: Exception) -> InputError:
    """The sentence about a data set that cannot be read.

    Args:
        source: Our name for it.
        error: What `datasets` raised.

    Returns:
        An error that says how to go on without a network.
    """
    repository, _ = (TEXTS | IMAGES)[source]
    lines = str(error).splitlines() or [type(error).__name__]
    return InputError(
        f"source = {source!r} cannot be read from huggingface.co/datasets/{repository} ({lines[0].rstrip('.')}): "
        "run this once where there is a network, or copy the data set's parquet files here and give parquet:DIR."
    )
