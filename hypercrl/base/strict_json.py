"""JSON as its standard has it: a number that is none, NaN or an infinity, is null."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypercrl.base.files import write_atomically


def to_json(values: Any, indent: int | None = None) -> str:
    """Mappings, sequences, strings, numbers, booleans and None as JSON, NaN and infinities as null.

    Raises:
        TypeError: something else is in it.
    """
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """What JSON says, NaN and infinities of old files too.

    Raises:
        ValueError: it is no JSON, no UTF-8, or nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def write_json(path: Path, values: Any, indent: int = 1) -> None:
    """Write a file of JSON, atomically.

    Raises:
        TypeError: something is in it that `to_json` does not know.
    """
    write_atomically(path, (to_json(values, indent) + "\n").encode())


def _finite(values: Any) -> Any:
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values
