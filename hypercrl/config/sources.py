"""Where Hydra finds settings beside the shipped ones: the user's folders, and what is plugged in.

A file GROUP/NAME.yaml of a folder named by --config-dir, or of configs/ in the current folder, is
GROUP=NAME. Classes of others are choices of their group by path or by the name of their entry
point, with the settings of their dataclass. Nothing is imported before it is chosen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.base.errors import UserError, first_line
from hypercrl.base.paths import configs_dir
from hypercrl.base.plugins import Table
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS
from hypercrl_envs import TASKS
from hypercrl_envs.parameters import parameters_of
from hypercrl_envs.plugins import installed
from hypercrl_envs.registry import PICTURE, find_task

TABLES: dict[str, Table[Any, Any]] = {"method": METHODS, "memory": MEMORIES, "planner": PLANNERS}
"""By the group of settings that chooses among them."""

ENV = "env"
PRESETS = ("preset", "recall")
"""Groups that say how long everything takes; their files are of all settings, as are those of:"""
TUNED = "tuned"
CALLED = "called"
"""CALLED/GROUP/NAME says no more than what a preset's or a sequence's file is called."""

_named: list[Path] = []


@contextmanager
def config_folder(folder: Path) -> Iterator[None]:
    """Look for settings in this folder too, in all that is composed inside the block.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder.")
    _named.append(folder.resolve())
    try:
        yield
    finally:
        _named.pop()


def config_dir_words() -> list[str]:
    """What makes another process look for settings where this one does."""
    return [f"--config-dir={folder}" for folder in _named]


def own_folders() -> list[Path]:
    """The user's folders of settings: the one named, and configs/ in the current folder."""
    beside = Path("configs").resolve()
    folders = [*_named, *([beside] if beside.is_dir() else [])]
    return [f for f in dict.fromkeys(folders) if f != configs_dir()]


def files(group: str) -> dict[str, Path]:
    """Per choice of a group its file, the shipped ones first.

    Raises:
        UserError: one name in two folders.
    """
    found: dict[str, Path] = {}
    for folder in (configs_dir(), *own_folders()):
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in found:
                raise UserError(_twice(group, path.stem, [found[path.stem], path]))
            found[path.stem] = path
    return found


def load_file(path: Path) -> DictConfig:
    """A file of settings; a sequence of tasks or a preset without a name has its file's.

    Raises:
        UserError: it is no YAML, or no mapping; or the tasks of a sequence are no list.
    """
    try:
        read = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(read, DictConfig):
        raise UserError(f"{path} is to have lines KEY: VALUE.")
    if path.parent.name in PRESETS and "preset" not in read:
        read.preset = path.stem
    if path.parent.name == ENV:
        if read._get_node("name") is None:  # one may refer to what Hydra knows in a job
            read.name = path.stem
        tasks = read._get_node("tasks")
        if not (
            tasks is None or OmegaConf.is_list(tasks) or OmegaConf.is_interpolation(read, "tasks")
        ):
            raise UserError(no_tasks(path))
    return read


def no_tasks(path: Path) -> str:
    """What to say of a sequence's file without a list of tasks."""
    return f"{path} is to have `tasks:`, a list of {{task: NAME, …}}."


def plugged_in_sequence(name: str) -> dict[str, Any]:
    """A sequence of one task, that of a class of others, with all its parameters.

    Raises:
        UserError: there is no such task.
    """
    try:
        parameters = parameters_of(find_task(name)).values()
    except ValueError as error:
        raise UserError(f"{error}.") from error
    usual = {
        p.name: p.default for p in parameters if p.name not in PICTURE and p.default is not p.empty
    }
    return {"name": name, "tasks": [{"task": name, **usual}]}


def plugged_in_names(group: str) -> list[str]:
    """What installed packages add to the choices of a group."""
    kind = "tasks" if group == ENV else TABLES[group].kind
    return sorted(installed(kind))


class _OwnFiles(FileConfigSource):
    """A folder of the user's; only groups that the program has are seen in it."""

    @staticmethod
    def scheme() -> str:
        return "own"

    def is_group(self, config_path: str) -> bool:
        return config_path in _groups() and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        group = config_path.partition("/")[0]
        return "/" in config_path and group in _groups() and super().is_config(config_path)

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._normalize_file_name(config_path)
        folders = [configs_dir(), *own_folders()]
        there = [folder / file for folder in folders if (folder / file).is_file()]
        group, _, name = config_path.rpartition("/")
        if len(there) > 1:
            raise UserError(_twice(group, name, there))
        config = load_file(Path(self.path) / file)
        result = super().load_config(config_path)
        result.config = config
        if group in (ENV, *PRESETS) and OmegaConf.is_list(defaults := config.get("defaults")):
            # Behind those that it takes settings from, which say their own names.
            others = [each for each in defaults if not _overrides(each)]
            defaults.insert(len(others), f"/{CALLED}/{config_path}")
        if group in (*PRESETS, TUNED) and result.header["package"] is None:
            result.header["package"] = "_global_"
        return result


class _Plugged(ConfigSource):
    """Classes of others, each with the settings of its dataclass."""

    @staticmethod
    def scheme() -> str:
        return "plugins"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in (ENV, *TABLES, CALLED)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.partition("/")
        if group == CALLED:
            return True
        if not name or not self.is_group(group):
            return False
        return ":" in name or name in plugged_in_names(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        wanted = results_filter in (None, ObjectType.CONFIG) and self.is_group(config_path)
        return plugged_in_names(config_path) if wanted else []

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.partition("/")
        if group == CALLED:
            return self._called(*name.split("/"))
        _refuse_shipped_name(group, name)
        node = plugged_in_sequence(name) if group == ENV else _settings(group, name)
        path = f"{self.scheme()}://"
        return ConfigResult(self.provider, path, OmegaConf.create(node), {"package": None})

    def _called(self, group: str, name: str) -> ConfigResult:
        key, package = ("name", ENV) if group == ENV else ("preset", "_global_")
        said = load_file(files(group)[name])._get_node(key)
        assert isinstance(said, Node)
        node = OmegaConf.create({key: said._value()})
        return ConfigResult(self.provider, f"{self.scheme()}://", node, {"package": package})


class _SearchPath(SearchPathPlugin):
    """Before what is shipped, so that a name that both have is seen."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.prepend("plugged in", f"{_Plugged.scheme()}://")
        for folder in own_folders():
            search_path.prepend("own", f"{_OwnFiles.scheme()}://{folder}")


def register_sources() -> None:
    """Make Hydra look there, in every command and composition."""
    for source in (_OwnFiles, _Plugged, _SearchPath):
        Plugins.instance().register(source)


def _settings(group: str, name: str) -> DictConfig:
    _, schema = TABLES[group][name]
    try:
        node = OmegaConf.structured(schema)
        node.name = name
    except OmegaConfBaseException as error:
        reason = first_line(error)
        raise UserError(f"{group}={name}: {schema.__name__} cannot be read: {reason}") from error
    return node


def _groups() -> Iterator[str]:
    return (path.name for path in configs_dir().iterdir() if path.is_dir())


def _refuse_shipped_name(group: str, name: str) -> None:
    own = TASKS if group == ENV else TABLES[group]
    taken = files(group).get(name)
    if taken is not None or name in own:
        raise UserError(
            f"{group}={name} is {taken or 'of the program'}, and an installed package has that "
            "name for one of its own; write that one as package.module:Class."
        )


def _overrides(entry: Any) -> bool:
    """Whether an entry of a list of defaults chooses anew what stands elsewhere; they come last."""
    return OmegaConf.is_dict(entry) and any(str(key).startswith("override ") for key in entry)


def _twice(group: str, name: str, there: list[Path]) -> str:
    return f"{group}={name} is in two files, {' and '.join(map(str, there))}; rename yours."
