"""Settings that are given and would be ignored: each says what it goes with, where declared.

The marks are `only_with` and `unused` of hypercrl.base.settings, and what a choice `ignores` of
other groups. Defaults, presets and files may hold such settings, as they are for several choices.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from itertools import zip_longest
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.settings import as_given
from hypercrl.config.messages import flat, hint
from hypercrl.config.overrides import apart, keys_of
from hypercrl.config.sources import TABLES

UNSET = ("null", "none", "false", "0", "0.0", "[]")
"""Values of a switch that is off."""

_SLIP = 0.85
"""Of difflib's ratio; that of `elits` and `elites` is 0.91, of `knobs` and `knots` 0.8."""


def check_used(composed: Iterable[tuple[DictConfig, Iterable[str]]]) -> None:
    """Refuse a setting that has no effect on anything.

    Args:
        composed: a configuration and the settings that were given for it, KEY=VALUE; or those of
            all cells of a grid, in which it is enough that a setting has an effect on one.

    Raises:
        UserError: names the setting and what it goes with; or a choice `ignores` one that there is
            not.
    """
    reasons: defaultdict[str, list[Ignored | None]] = defaultdict(list)
    for config, words in composed:
        _check_ignores(config)
        for key in _given(words):
            reasons[key].append(why_ignored(config, key))
    for key, why in sorted(reasons.items(), key=lambda item: item[0]):
        if why[0] and all(why):
            raise UserError(why[0].told(key))


def used_words(config: DictConfig, words: Iterable[str]) -> list[str]:
    """The words, KEY=VALUE, that set what has an effect on this configuration; of KEY={...} that
    part of it."""
    used: list[str] = []
    for word in words:
        keys = _given([word])
        ignored = {key for key in keys if why_ignored(config, key)}
        if not ignored:
            used.append(word)
        elif ignored < keys:
            used += [part for part in apart(word) if not _given([part]) & ignored]
    return used


@dataclass(frozen=True)
class Ignored:
    """Why a setting has no effect: by what is `given`, and unless one does `give` another beside
    it; "" where nothing helps."""

    given: str
    give: str = ""

    def told(self, key: str) -> str:
        """What who gives the setting is told."""
        or_else = f"give {self.give} beside it, or leave it out" if self.give else "leave it out"
        return f"{key} has no effect with {self.given}: {or_else}."


def why_ignored(config: DictConfig, key: str) -> Ignored | None:
    """What makes a setting, or a group that it is in, meaningless; None where nothing does."""
    for node, path, metadata in _levels(config, key):
        if metadata.get("unused"):
            return Ignored(f"{path.rstrip('.')}={node.name}")
        for needed in metadata.get("only_with", ()):
            if lack := _lack(config, node, path, needed, key):
                return lack
    return _why_a_choice_ignores(config, key)


def _why_a_choice_ignores(config: DictConfig, key: str) -> Ignored | None:
    """The same of what a choice in another group, such as a method, has no use for."""
    for group, node, ignores in _choices(config):
        for needed in (ignores[name] for name in ignores if f"{key}.".startswith(f"{name}.")):
            choice = f"{group}={node.name}"
            if not needed:
                return Ignored(choice)
            if lack := _lack(config, config, "", needed, key):
                return Ignored(f"{choice} and {lack.given}", lack.give)
    return None


def _choices(config: DictConfig) -> Iterator[tuple[str, DictConfig, Mapping[str, str]]]:
    """Groups in which something is chosen that ignores settings elsewhere: which, and what."""
    for group in map(str, config):
        # The type alone: config[group] of a text such as run_dir would parse and fill it in.
        if ignores := getattr(OmegaConf.get_type(config, group), "ignores", {}):
            yield group, config[group], ignores


def _check_ignores(config: DictConfig) -> None:
    """Raise UserError where what a choice ignores, or what gives that an effect, is no setting."""
    for group, node, ignores in _choices(config):
        schema: Any = OmegaConf.get_type(node)
        said = f"{group}={node.name}: `ignores` of {schema.__name__}"
        if not (isinstance(ignores, Mapping) and all(isinstance(v, str) for v in ignores.values())):
            raise UserError(
                f'{said} is a mapping from settings to what gives them an effect, "" for nothing, '
                f'such as {{"dynamics.hidden": ""}}, not {ignores!r}.'
            )
        known = sorted(_known(config))
        for key, needed in ignores.items():
            switches = needed.partition("=")[0].removeprefix("/").split("|") if needed else []
            for name in (key, *switches):
                if name not in known and not _of_another_class(name, known):
                    raise UserError(f"{said} names {name!r}: no such setting.{hint(name, known)}")


def _known(config: DictConfig) -> set[str]:
    """Settings that there are, with other choices of classes among the program's own as well."""
    chosen = (
        f"{group}.{f.name}"
        for group in TABLES
        for _, schema in TABLES[group].values()
        for f in fields(schema)
        if group in config
    )
    return {*flat(config), *chosen}


def _of_another_class(name: str, known: Iterable[str]) -> bool:
    """Whether a setting may be one of a class of others, which is not chosen here.

    It is in a group of such, and no slip of the pen for a setting that is there.
    """
    group, _, own = name.partition(".")
    there = [key.removeprefix(f"{group}.") for key in known if key.startswith(f"{group}.")]
    return group in TABLES and not get_close_matches(own, there, 1, _SLIP)


def _lack(config: DictConfig, node: DictConfig, path: str, needed: str, key: str) -> Ignored | None:
    """What is so in place of what a setting needs, and what to give; None: nothing is lacking.

    Args:
        node, path: of the group in which `needed` is said, as `hypercrl.base.settings.setting` has
            it in `only_with`.
    """
    names, _, values = needed.partition("=")
    start, own, names = (config, "", names[1:]) if names.startswith("/") else (node, path, names)
    switches = {f"{own}{name}": _chosen(start, name) for name in names.split("|")}
    wanted = values.split("|") if values else []
    met = (v in wanted if wanted else v not in UNSET for v in switches.values())
    if key in switches or any(met):
        return None
    give = " or ".join(map(_plain, switches)) + (f"={' or '.join(wanted)}" if wanted else "")
    given = " and ".join(f"{_plain(name)}={value}" for name, value in switches.items())
    return Ignored(given, give)


def _given(words: Iterable[str]) -> set[str]:
    """Keys of the words, of groups with settings of their own among them these alone."""
    keys = keys_of(words)
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def _levels(config: DictConfig, key: str) -> Iterator[tuple[DictConfig, str, Mapping[str, Any]]]:
    """From the outermost group inward: the node, its path, and the marks of what is named in it."""
    node, path = config, ""
    names = key.split(".")
    for name, inner in zip_longest(names, names[1:]):
        schema: Any = OmegaConf.get_type(node)
        if not (isinstance(node, DictConfig) and is_dataclass(schema)):
            return
        marks = {f.name: f.metadata for f in fields(schema)}.get(name, {})
        yield node, path, {} if inner in marks.get("but", ()) else marks
        node, path = node.get(name), f"{path}{name}."


def _chosen(node: DictConfig, name: str) -> str:
    """A setting's value as one would give it, of a group that of its choice."""
    value = OmegaConf.select(node, name)
    return as_given(value.name if isinstance(value, DictConfig) else value)


def _plain(name: str) -> str:
    return name.removesuffix(".name")
