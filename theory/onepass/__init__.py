"""One pass over fresh data: least squares, where every expectation is exact."""
