"""Probes: what a network is doing, measured without touching its training."""
