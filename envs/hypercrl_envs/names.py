"""Messages for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known_name(name: str, valid: Iterable[str], kind: str) -> str:
    """`name`, if it is one of `valid`.

    Raises:
        ValueError: it is not; the message names the nearest valid one and all others.
    """
    names = sorted(valid)
    if name in names:
        return name
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown {kind}: {name!r}; {hint}valid: {', '.join(names)}")
