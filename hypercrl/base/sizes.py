"""Bytes of the numbers that are computed with."""

FLOAT = 4
TRAINED = 4 * FLOAT
"""Of a parameter: its value, its gradient, and the two moments of Adam."""
