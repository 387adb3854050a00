"""Adapters of a screenful: a watch as a callback of Hugging Face's Trainer and of Lightning's."""
