"""What happened: trains models, probes them, records runs."""
