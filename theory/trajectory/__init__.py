"""How norms and rotations get there: exact recursions, closed forms and the fast solver."""
