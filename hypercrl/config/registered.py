"""Where Hydra finds the dataclasses that the YAML files are checked against: train_schema, and
method/hnet_schema and the like.

Hydra's own store of such would copy all of them at every composition, an eighth of its time.
"""

import copy
from functools import cache

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from hypercrl.config.schema import COMMANDS
from hypercrl.config.sources import TABLES, register_sources

_SUFFIX = "_schema"


def register() -> None:
    """Make Hydra find the schemas, and what the user has beside them, in every composition."""
    register_sources()
    for source in (_Schemas, _SearchPath):
        Plugins.instance().register(source)


class _Schemas(ConfigSource):
    """Each is read when it is first asked for."""

    @staticmethod
    def scheme() -> str:
        return "schemas"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in TABLES

    def is_config(self, config_path: str) -> bool:
        return _schema(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:  # noqa: ARG002
        return []  # they are no choices of their groups

    def load_config(self, config_path: str) -> ConfigResult:
        schema = _schema(config_path)
        assert schema is not None
        node = copy.deepcopy(_read(schema))
        return ConfigResult(self.provider, f"{self.scheme()}://", node, {"package": None})


class _SearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("hypercrl", f"{_Schemas.scheme()}://")


def _schema(config_path: str) -> type | None:
    """The dataclass of a path, if there is one."""
    group, _, name = config_path.rpartition("/")
    if not name.endswith(_SUFFIX):
        return None
    name = name.removesuffix(_SUFFIX)
    if not group:
        return COMMANDS.get(name)
    return TABLES[group][name][1] if name in TABLES.get(group, ()) else None


@cache
def _read(schema: type) -> DictConfig:
    return OmegaConf.structured(schema)
