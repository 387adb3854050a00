"""What rounding to bfloat16 leaves of decay, of steps and of residual branches, one law per file."""
