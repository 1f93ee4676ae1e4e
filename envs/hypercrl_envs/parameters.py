"""What a class is made with."""

from __future__ import annotations

import inspect

_OTHERS = inspect.Parameter.VAR_KEYWORD


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """What a class can be made with by name, and what it hands on to those it inherits from."""
    found: dict[str, inspect.Parameter] = {}
    for owner in kind.__mro__:
        if "__init__" not in vars(owner):
            continue
        own = inspect.signature(owner).parameters.values()
        for parameter in own:
            if parameter.kind not in (_OTHERS, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not _OTHERS for parameter in own):
            break
    return found
