"""Every law beside a simulation that does not share its code: `python -m paper.laws`."""
