"""Where norms and rotations settle, one law per file."""
