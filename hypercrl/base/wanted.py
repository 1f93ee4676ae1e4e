"""What a setting takes, in words, for who gave it something of another kind."""

import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import Field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import (
    ConfigIndexError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from hypercrl.base.settings import shown

_ONE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MANY = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false each"}
_SUCH_AS = {int: ("1", "2"), float: ("0.5", "1.0"), str: ("NAME", "OTHER"), bool: ("true", "false")}
_LONGEST = 60
"""Characters of what was given that a message shows."""


def wrong_kind(
    error: OmegaConfBaseException,
    words: Sequence[str] = (),
    usual: DictConfig | None = None,
    above: str = "",
) -> str | None:
    """What the setting takes that an error is about, an example, and what it was given.

    Args:
        error: of OmegaConf, over a value of a dataclass's field.
        words: the settings given.
        usual: the configuration without what is wrong, of which examples are; None: there is none.
        above: what the key lies under, with its dot.

    Returns:
        None where the error is about something else.

    Example:
        >>> OmegaConf.update(OmegaConf.structured(TrainConfig), "seed", "a")  # raises `error`
        >>> wrong_kind(error)
        "seed is a whole number, such as seed=1, not 'a'."
    """
    key = error.full_key
    found = _field(error)
    if found is None or not key:
        return None
    kind, field = found
    kinds, null = _without_null(kind)
    values = field.metadata.get("values") if field else None
    takes = [f"one of {', '.join(values)}" if values else _words(part) for part in kinds]
    takes += ["null"] * null
    example = "" if values or kinds == [bool] else _example(key, kinds[0], usual)
    such_as = f", such as {above}{example}," if example else ","
    given = _given(error, words)
    none = f"; {above}{key}=[] is none" if given == "null" and _is_empty(usual, key) else ""
    return f"{above}{key} is {' or '.join(takes)}{such_as} not {given}{none}."


def no_entry(error: ConfigIndexError, usual: DictConfig | None) -> str:
    """What to say where an entry of a list was set that it does not have; `usual` as above."""
    name = f"{error.full_key}".rpartition("[")[0]
    whole = _usual(usual, name)
    instead = f": give the whole list, such as {whole}" if whole else ""
    return f"{name} has no entry {error.key}; they count from 0{instead}."


def _field(error: OmegaConfBaseException) -> "tuple[Any, Field[Any] | None] | None":
    """Type and dataclass field of the value that an error is about; no field in a list."""
    owner, key = error.object_type, error.key
    if is_dataclass(owner):
        if key is None:  # something else in the place of all of them
            return owner, None
        try:
            hints: dict[str, Any] = get_type_hints(owner)
        except Exception:  # of a class of others, a name that is not there
            return None
        by_name = {f.name: f for f in fields(owner)}
        return (hints[key], by_name[key]) if key in by_name else None
    if owner is not list:
        return None
    (whole, *_), _ = _without_null(error.ref_type)
    if key is None:
        return (whole if get_origin(whole) is list else list), None
    inside = get_args(whole)
    return (inside[0], None) if inside else None


def _without_null(kind: Any) -> tuple[list[Any], bool]:
    """The types that a type is one of, and whether it may be null as well."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    kinds = [part for part in parts if part is not type(None)]
    return kinds, len(kinds) < len(parts)


def _words(kind: Any) -> str:
    if is_dataclass(kind):
        return "a group of settings"
    if kind is list or get_origin(kind) is list:
        (inside, *_), null = _without_null(*get_args(kind) or (Any,))
        named = _MANY.get(inside)
        return f"a list of {named}{', of which some may be null' * null}" if named else "a list"
    return _ONE.get(kind, "a mapping" if get_origin(kind) is dict else "of another kind")


def _example(key: str, kind: Any, usual: DictConfig | None) -> str:
    """KEY=VALUE, as it usually is, or else as it might be; empty where nobody knows."""
    if is_dataclass(kind):
        inside = (_usual(usual, f"{key}.{f.name}") for f in fields(kind))
        return next(filter(None, inside), "")
    if now := _usual(usual, key):
        return now
    if get_origin(kind) is list:
        (part, *_), _ = _without_null(*get_args(kind))
        return f"{key}=[{','.join(_SUCH_AS[part])}]" if part in _SUCH_AS else ""
    return f"{key}={_SUCH_AS[kind][0]}" if kind in _SUCH_AS else ""


def _usual(usual: DictConfig | None, key: str) -> str:
    value = None
    with suppress(InterpolationResolutionError):  # it refers to what is not there
        value = None if usual is None else OmegaConf.select(usual, key, throw_on_missing=False)
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if plain is None or plain in ("", []) or isinstance(plain, dict):
        return ""
    text = shown(plain)
    return f"{key}={text}" if text else ""


def _is_empty(usual: DictConfig | None, key: str) -> bool:
    """Whether it usually is a list with nothing in it."""
    value = None if usual is None else OmegaConf.select(usual, key, throw_on_missing=False)
    return isinstance(value, ListConfig) and not len(value)


def _given(error: OmegaConfBaseException, words: Sequence[str]) -> str:
    """What there was in its place, as it was typed where it was; a text in quotes."""
    value: Any = error.value
    if isinstance(value, Node):
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value._value()
    if isinstance(value, str):
        text = repr(value)
    elif typed := [word for word in words if word.startswith(f"{error.full_key}=")]:
        text = typed[-1].partition("=")[2]
    else:
        text = shown(value) or f"{value}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
