"""What a setting means and what it may be, written where the setting is.

The meaning is one line, which `hypercrl COMMAND --help` and the documentation show.
"""

from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields, is_dataclass
from math import inf, isfinite
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING

from hypercrl.base.errors import UserError

_SINGLE = {int, float, str, bool}

MOST = 10**9
"""The largest whole number that a setting takes which does not say otherwise."""

LONGEST_VALUE = 24
"""Characters of a value that is shown; longer ones are such as the tasks of a sequence, which
`--cfg job` prints."""


def setting(default: Any = MISSING, *, only_with: Sequence[str] = (), help: str = "") -> Any:
    """A dataclass field that holds any value of its type; MISSING has to be given.

    Args:
        only_with: all that has to be so, or else the setting has no effect, and who gives it is
            told. "name" beside it has to be set, that is not 0, null or none; "name=a|b" has to
            have one of these values; of "name|other" one is enough. "/name" is one of the
            whole configuration, not of the same group. A setting, or a group of them,
            in which a choice is made ("memory") stands for that. What is named is never refused
            itself: it is what switches the others.
    """
    metadata = {"only_with": only_with, "help": help}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def place(default: Any = MISSING, *, help: str = "") -> Any:
    """A dataclass field that names a file or folder; an empty name is none."""
    return field(default=default, metadata={"place": True, "help": help})


def group(
    factory: Callable[[], Any],
    *,
    only_with: Sequence[str] = (),
    but: Sequence[str] = (),
    help: str = "",
) -> Any:
    """A dataclass field that holds settings of its own.

    Args:
        only_with: as of `setting`, of all of them but those that `but` names.
    """
    metadata = {"only_with": only_with, "but": but, "help": help}
    return field(default_factory=factory, metadata=metadata)


def unused(default: Any) -> Any:
    """A field of the base class that has no effect in this one: who gives it is told."""
    return field(default=default, metadata={"unused": True})


def number(
    default: Any = MISSING,
    *,
    least: float = -inf,
    most: float = inf,
    once: float = -inf,
    only_with: Sequence[str] = (),
    allocated: bool = False,
    help: str = "",
) -> Any:
    """A dataclass field that holds a number, or a list of numbers, from `least` to `most`.

    Args:
        once: what it was at most in an older version, if that took more: runs that it has begun
            may have it.
        only_with: as of `setting`.
        allocated: of a memory: so many are allocated, each of `memory.width` numbers at least, and
            a run that has no room for them is refused before anything is built.
    """
    limits = {"least": least, "most": most, "once": once, "allocated": allocated}
    limits |= {"only_with": only_with, "help": help}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=limits)
    return field(default=default, metadata=limits)


def choice(default: Any, *values: str, only_with: Sequence[str] = (), help: str = "") -> Any:
    """A dataclass field that holds one of `values`; `only_with` as of `setting`.

    Raises:
        ValueError: the default is none of them.
    """
    if default is not None and default not in values:
        raise ValueError(f"the default {default!r} is none of {', '.join(values)}")
    return field(default=default, metadata={"values": values, "only_with": only_with, "help": help})


def meaning(schema: Any, name: str) -> str:
    """What the field `name` of a dataclass is for; a field without a text has that of its base."""
    for kind in schema.__mro__:
        own = kind.__dict__.get("__dataclass_fields__", {}).get(name)
        if own is not None and (text := own.metadata.get("help")):
            return text
    return ""


def check(config: Any, prefix: str = "", *, begun: bool = False) -> None:
    """Check every field of a config, and of the configs in it, against its limits.

    Args:
        begun: whether it is of a run that there is; then against those of older versions as well,
            see `number`.

    Raises:
        UserError: a value outside; names the key, the value and the limits.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            check(value, f"{prefix}{f.name}.", begun=begun)
        elif value is not None:
            _check_entries(config, f.name, value, f"{prefix}{f.name}")
            _check_value(f, value, f"{prefix}{f.name}", begun)


def _check_entries(config: Any, name: str, value: Any, key: str) -> None:
    """Raise UserError where a list of numbers or texts holds lists, which OmegaConf lets in."""
    entries = value if isinstance(value, list) else []
    inner = [entry for entry in entries if isinstance(entry, list | dict)]
    if inner and _SINGLE & _parts(get_type_hints(type(config))[name]):
        raise UserError(f"{key} is a list of single values, of which {inner[0]!r} is none.")


def _parts(kind: Any) -> set[Any]:
    """All that a type is put together from: of list[int | None] list[…], int and None."""
    return {kind}.union(*map(_parts, get_args(kind)))


def _check_value(f: "Field[Any]", value: Any, key: str, begun: bool) -> None:
    if values := f.metadata.get("values"):
        if value not in values:
            raise UserError(f"{key} is one of {', '.join(values)}, not {value!r}.")
        return
    least, most = f.metadata.get("least", -inf), f.metadata.get("most", inf)
    if begun:
        most = max(most, f.metadata.get("once", -inf))
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, int | float):
            continue
        if isinstance(number, float) and not isfinite(number):
            raise UserError(f"{key} must be a finite number, not {number:g}.")
        largest = MOST if most == inf and isinstance(number, int) else most
        if not least <= number <= largest:
            limit = f"at least {exact(least)}" if number < least else f"at most {exact(largest)}"
            raise UserError(f"{key} must be {limit}, not {_short(number)}.")


def as_given(value: Any) -> str:
    """A value as one would give it: null, true, false, or what it is."""
    if value is None:
        return "null"
    return f"{value}".lower() if isinstance(value, bool) else f"{value}"


def shown(value: Any) -> str:
    """A value as one would give it, or nothing where that is long."""
    text = as_given(value)
    text = text.replace(" ", "") if isinstance(value, list) else text
    return text if len(text) <= LONGEST_VALUE else ""


def exact(limit: float) -> str:
    """A limit in the shortest form that is that number: 1e+09, but 9223372036854775807."""
    short = f"{limit:g}"
    return short if float(short) == limit else str(limit)


def _short(number: float) -> str:
    """Whole numbers as they were given; those of hundreds of digits, which no float holds, not."""
    text = str(number) if isinstance(number, int) else f"{number:g}"
    return text if len(text) < 40 else f"a number of {len(text)} digits"
