"""Hydra's override strings, KEY=VALUE: written so that every value comes through, and read."""

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from hypercrl.base.errors import UserError


def override(key: str, text: str | Path) -> str:
    """KEY=VALUE that Hydra reads as just this text, in quotes where it would read it otherwise.

    Raises:
        UserError: the text holds "${", a reference to another setting even in quotes.
    """
    text = str(text)
    if "${" in text:
        raise UserError(f'{text} has "${{" in it, which Hydra takes for a reference to a setting.')
    plain = f"{key}={text}"
    with suppress(HydraException):
        if OverridesParser.create().parse_override(plain).value() == text:
            return plain
    return f"{key}={in_quotes(text)}"


def in_quotes(text: str) -> str:
    """A text as Hydra reads it whatever its characters mean elsewhere."""
    return QuotedString(text, Quote.double).with_quotes()


def in_shell(key: str, text: str | Path) -> str:
    """The same as one types it into a shell."""
    return shlex.quote(override(key, text))


def keys_of(overrides: Iterable[str]) -> set[str]:
    """Settings that are given: of `a.b=1`, `+a.b=1`, `~a.b` and `a={b: 1}` it is a.b each time."""
    keys: set[str] = set()
    for given in OverridesParser.create().parse_overrides(list(overrides)):
        keys.add(given.key_or_group)
        value = given.value()
        if isinstance(value, dict):
            keys |= {f"{given.key_or_group}.{key}" for key in value}
    return keys
