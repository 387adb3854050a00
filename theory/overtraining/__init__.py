"""Many epochs, training loss towards zero: label noise, balance and the edge of stability on the sphere."""
