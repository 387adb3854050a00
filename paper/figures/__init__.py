"""The figures, one module each: `draw` takes tables and returns a figure; it reads and writes nothing."""
