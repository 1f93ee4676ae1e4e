"""What of others a run needs: named in its folder, and looked for before it is gone on with."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import write_json
from hypercrl.config.sources import ENV, TABLES
from hypercrl_envs import TASKS
from hypercrl_envs.plugins import installed

NEEDS = "needs.json"
_PATH = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.-]*")
_OURS = ("hypercrl", "hypercrl_envs")


@dataclass(frozen=True)
class Need:
    """A class, function or environment of others.

    Attributes:
        setting: that names it.
        name: its value, "package.module:name" or the name of an entry point.
        module: that is imported for it.
        package, version: that the module was installed with; None: it lay in a folder.
        folder: in which the module lay, where it was not installed.
    """

    setting: str
    name: str
    module: str
    package: str | None
    version: str | None
    folder: str | None


def write_needs(folder: Path, config: Mapping[str, Any]) -> None:
    """Leave needs.json in a run's folder, if its configuration names anything of others."""
    if needs := list(_needs(config)):
        write_json(folder / NEEDS, [asdict(need) for need in needs], indent=2)


def check_needs(folder: Path) -> None:
    """See that all is there; warn where a package has another version than it had. Imports nothing.

    Raises:
        UserError: names everything that is missing.
    """
    path = folder / NEEDS
    if not path.exists():
        return
    try:
        needs = [Need(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        missing = [need for need in needs if find_spec(need.module.partition(".")[0]) is None]
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); put the right file back.") from error
    if missing:
        lines = "".join(f"\n  {_told(need)}" for need in missing)
        raise UserError(
            f"{folder} needs what is not here:{lines}\n"
            "Install it, or call the command from the folder in which it lies."
        )
    for need in needs:
        now = _version(need.package)
        if now != need.version:
            warnings.warn(
                f"{folder} was begun with {need.package} {need.version}; here it is {now}",
                stacklevel=2,
            )


def _needs(config: Mapping[str, Any]) -> Iterator[Need]:
    """Whatever of others a run's configuration names, each once."""
    found: dict[tuple[str, str], Need] = {}
    for setting, kind, name in _names(config):
        if path := _PATH.fullmatch(name):
            module = path[1]
        elif kind is not None and name in (offered := installed(kind)):
            module = offered[name][0].module
        else:
            continue
        if module.partition(".")[0] not in _OURS:
            found[setting, name] = Need(setting, name, module, *_origin(module))
    yield from found.values()


def _names(config: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str]]:
    """Setting, kind of its entry points if it has any, and text, of all that may name something."""
    for group, table in TABLES.items():
        name = config[group]["name"]
        if name not in table:
            yield group, table.kind, name
    for index, task in enumerate(config[ENV]["tasks"]):
        for key, value in task.items():
            if isinstance(value, str) and value not in TASKS:
                yield f"{ENV}.tasks.{index}.{key}", "tasks" if key == "task" else None, value


def _origin(module: str) -> tuple[str | None, str | None, str | None]:
    """Package, version and folder of a module."""
    top = module.partition(".")[0]
    if packages := packages_distributions().get(top):
        return packages[0], _version(packages[0]), None
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None, None, None
    file = Path(spec.origin)
    return None, None, str(file.parents[1] if file.name == "__init__.py" else file.parent)


def _version(package: str | None) -> str | None:
    try:
        return None if package is None else version(package)
    except PackageNotFoundError:
        return None


def _told(need: Need) -> str:
    where = f"package {need.package} {need.version}" if need.package else f"it lay in {need.folder}"
    return f"{need.setting}={need.name}: module {need.module}, {where}"
