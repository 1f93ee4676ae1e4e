"""What others bring along: classes and functions of installed packages and of modules by name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from hypercrl_envs.checked import shown, told
from hypercrl_envs.names import known_name

KINDS = ("methods", "planners", "memories", "tasks")
"""Of what an installed package may offer."""

HINT = 'write "package.module:name", of an installed package or of the current folder'


def imported(path: str) -> Any:
    """What "package.module:name" names: the one place that imports modules which settings name.

    Raises:
        ValueError: it names nothing, or importing it raised.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError(f"there is nothing to import: {HINT}")
    root = module.partition(".")[0]
    if root not in sys.modules and not (root and find_spec(root)):
        raise ValueError(f"there is no module {root!r}: {HINT}")
    found = _attempted(lambda: importlib.import_module(module), HINT)
    if not hasattr(found, name):
        raise ValueError(f"{module} has no {name!r}{_meant(name, vars(found))}: {HINT}")
    return getattr(found, name)


def _meant(name: str, known: Iterable[str]) -> str:
    """The name that is most like another one, as a question; empty where none is."""
    by_letters = {each.casefold(): each for each in known if not each.startswith("_")}
    near = get_close_matches(name.casefold(), by_letters, 1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


def installed(kind: str) -> dict[str, list[EntryPoint]]:
    """Per name what installed packages offer in the group "hypercrl.KIND", unimported.

    Args:
        kind: one of KINDS.
    """
    found: dict[str, list[EntryPoint]] = {}
    places = tuple((place, _changed(place)) for place in sys.path)
    for point in _offers(places)[kind]:
        found.setdefault(point.name, []).append(point)
    return found


@lru_cache(1)
def _offers(places: tuple[tuple[str, int], ...]) -> dict[str, list[EntryPoint]]:  # noqa: ARG001
    """By kind. Read once for what `sys.path` is now, and anew when a package comes or goes in it:
    with a hundred packages that is a tenth of the time in which settings are composed."""
    every = entry_points()
    return {kind: list(every.select(group=f"hypercrl.{kind}")) for kind in KINDS}


def _changed(place: str) -> int:
    """When something was put into a folder or taken out of it last, ns; 0 where there is none."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def plugged_in(name: str, kind: str, known: Iterable[str], what: str) -> Any:
    """What a name that is none of `known` stands for: a path, or an entry point.

    Args:
        name: "package.module:name", or what an installed package calls it.
        kind: one of KINDS.
        known: names of the program's own, for the message.
        what: such a thing is, for messages.

    Raises:
        ValueError: there is no such thing, several packages have it, or importing it raised.
    """
    try:
        if ":" in str(name):
            return imported(name)
        points = installed(kind)
        if name in points:
            return _offered(points[name])
    except ValueError as error:
        raise ValueError(f"{what} {name!r}: {error}") from error
    return known_name(name, [*known, *points], what)  # raises


def _offered(points: list[EntryPoint]) -> Any:
    """What the only one of these entry points names."""
    told = [f"{point.value} of {origin(point)}" for point in points]
    if len(points) > 1:
        raise ValueError(f"several packages have it, {' and '.join(told)}; write the path of one")
    return _attempted(points[0].load, f"it is {told[0]}")


def origin(point: EntryPoint) -> str:
    """The package and version that an entry point comes from."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def whole(found: Any, base: type) -> str | None:
    """Why `found` is no class that can be made of `base`; None: it is one."""
    if not (isinstance(found, type) and issubclass(found, base)):
        return f"it is {shown(found)}, and no class that inherits from {base.__name__}"
    missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
    return f"{found.__name__} lacks {missing}" if missing else None


def _attempted(load: Callable[[], Any], hint: str) -> Any:
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing it {told(error)}; {hint}") from error
