"""A run's stored settings as the dataclasses of this version, or what of them does not fit."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.base.errors import UserError, first_line
from hypercrl.base.wanted import wrong_kind
from hypercrl.config.sources import TABLES

_MEND = "Use the version that the run was begun with, or mend it there."


def fitted(values: Mapping[str, Any], schema: type, file: Path) -> Any:
    """Stored settings as an instance of the dataclass `schema`.

    Args:
        values: plain containers, as `read_stored` returns them.
        file: that they were read from, for messages.

    Raises:
        UserError: the first setting that does not fit: one that there is not, that is lacking, or
            whose value is of another kind. Names the file and the key.
    """
    typed = OmegaConf.structured(schema)
    for key, kind in get_type_hints(schema).items():
        if OmegaConf.is_missing(typed, key) and is_dataclass(kind):
            typed[key] = _chosen(values, key, file) if key in TABLES else kind
    for fault in _misfits(typed, values):
        raise UserError(f"{file} {fault}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(typed, values))
    except OmegaConfBaseException as error:
        wanted = wrong_kind(error, usual=typed) or f"{error.full_key}: {first_line(error)}."
        raise UserError(f"{file}: {wanted} {_MEND}") from error
    except Exception as error:  # of a class of others, whose __post_init__ refuses them
        raise UserError(f"{file}: its settings cannot be: {first_line(error)}. {_MEND}") from error


def _chosen(values: Mapping[str, Any], group: str, file: Path) -> type:
    """The dataclass of what was chosen in a group."""
    settings = values.get(group)
    name = settings.get("name") if isinstance(settings, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f"{file} has no {group}.name, which says what was chosen. {_MEND}")
    try:
        return TABLES[group][name][1]
    except UserError as error:
        raise UserError(f"{file}: {error} {_MEND}") from error


def _misfits(typed: DictConfig, values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """What is to be said of keys too many, too few, or of something else in a group's place."""
    for name, value in values.items():
        if name not in typed.keys():  # noqa: SIM118, as what is missing is in it too
            gone = f"{above}{name}={value}"[:60]
            yield (
                f"has {gone!r}, a setting that this version of the program does not have. Use the "
                "version that the run was begun with; or delete it there, if what it did can be "
                "done without."
            )
    for name in map(str, typed):
        lacks = OmegaConf.is_missing(typed, name)
        if values.get(name, MISSING if lacks else None) == MISSING:
            yield f"has no {above}{name}, which this version of the program needs. {_MEND}"
        if lacks:
            continue
        own = typed[name]
        value = values.get(name, {} if isinstance(own, DictConfig) else [])
        shown = "null" if value is None else f"{value!r}"[:60]
        if isinstance(own, DictConfig) and is_dataclass(OmegaConf.get_type(own)):
            if isinstance(value, Mapping):
                yield from _misfits(own, value, f"{above}{name}.")
            else:
                yield f"has {shown} for {above}{name}, which is a group of settings. {_MEND}"
        elif isinstance(own, ListConfig) and isinstance(value, Mapping):
            yield f"has {shown} for {above}{name}, which is a list. {_MEND}"
