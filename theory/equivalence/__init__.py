"""Which run without weight decay is the same run: exact twins, one optimizer per file."""
