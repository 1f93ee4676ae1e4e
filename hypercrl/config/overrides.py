"""Hydra's override strings, KEY=VALUE: written so that every value comes through, and read."""

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from hypercrl.base.errors import UserError


def parsed(words: Iterable[str]) -> list[Override]:
    """Each word as Hydra reads it. Those of equal words are one object, not to be changed.

    Raises:
        OverrideParseException: names the first that cannot be read.
    """
    return [_parsed(word) for word in words]


@lru_cache(1024)
def _parsed(word: str) -> Override:
    """A word takes a millisecond, and five look at it before a command starts."""
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def setting(key: str, value: Any) -> str:
    """KEY=VALUE of a Python value: text, number, boolean, None, or lists and mappings of these.

    Raises:
        UserError: something else, or a text that `override` refuses.
    """
    if isinstance(value, str | Path):
        return override(key, value)
    return f"{key}={_literal(key, value)}"


def _literal(key: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return in_quotes(_no_reference(str(value)))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_literal(key, v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(key, each) for each in value) + "]"
    raise UserError(
        f"{key} takes text, numbers, booleans, None, lists and mappings, no {type(value).__name__}."
    )


def override(key: str, text: str | Path) -> str:
    """KEY=VALUE that Hydra reads as just this text, in quotes where it would read it otherwise.

    Raises:
        UserError: the text holds "${", a reference to another setting even in quotes.
    """
    text = _no_reference(str(text))
    plain = f"{key}={text}"
    with suppress(HydraException):
        if parsed([plain])[0].value() == text:
            return plain
    return f"{key}={in_quotes(text)}"


def _no_reference(text: str) -> str:
    if "${" in text:
        raise UserError(f'{text} has "${{" in it, which Hydra takes for a reference to a setting.')
    return text


def in_quotes(text: str) -> str:
    """A text as Hydra reads it whatever its characters mean elsewhere."""
    return QuotedString(text, Quote.double).with_quotes()


def in_shell(key: str, text: str | Path) -> str:
    """The same as one types it into a shell."""
    return shlex.quote(override(key, text))


def apart(word: str) -> list[str]:
    """A word for each setting of a group that is given at once.

    Example:
        >>> apart("protocol={updates: 5, robots: 2}")
        ['protocol.updates=5', 'protocol.robots=2']
    """
    (given,) = parsed([word])
    key, value = given.key_or_group, given.value()
    if not isinstance(value, dict):
        return [word]
    sign = word.partition(key)[0]
    return [setting(f"{sign}{key}.{name}", each) for name, each in value.items()]


def keys_of(overrides: Iterable[str]) -> set[str]:
    """Settings that are given: of `a.b=1`, `+a.b=1`, `~a.b` and `a={b: 1}` it is a.b each time."""
    keys: set[str] = set()
    for given in parsed(overrides):
        keys.add(given.key_or_group)
        value = given.value()
        if isinstance(value, dict):
            keys |= {f"{given.key_or_group}.{key}" for key in value}
    return keys
