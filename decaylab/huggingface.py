"""Hugging Face: `from decaylab.huggingface import DecaylabCallback`."""

from bridge.integrations.huggingface import DecaylabCallback as DecaylabCallback
