"""Dotted names of what is nested."""

from collections.abc import Iterator
from typing import Any


def dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of every leaf: {"a": {"b": 1}} has ("a.b", 1)."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
