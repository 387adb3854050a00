"""Do they agree: predictions against records, live or after the fact."""
