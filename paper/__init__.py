"""The figures, drawn from results."""
