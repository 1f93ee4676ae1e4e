"""Hydra finds and merges what is shipped once for each choice among it: most of the time in which
settings are composed, and that is a quarter of a tiny run. Words are applied to a copy, as ever."""

import copy

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from hypercrl.base.paths import configs_dir
from hypercrl.config.registered import _schema
from hypercrl.config.sources import ENV, TABLES, plugged_in_names


class Merged(list):
    """Configurations to be merged, by name, and all that they depend on."""

    depend_on: tuple

    @classmethod
    def of(cls, names, depend_on):
        merged = cls(names)
        merged.depend_on = depend_on
        return merged


def compose_choices_once(patch: pytest.MonkeyPatch) -> None:
    find, merge = (
        defaults_list._create_defaults_list,
        ConfigLoaderImpl._compose_config_from_defaults_list,
    )
    lists, merged = {}, {}

    def find_once(repo, config_name, overrides, prepend_hydra, skip_missing):
        key = (config_name, prepend_hydra, skip_missing, repr(overrides.override_choices))
        if not _all_shipped(repo, overrides):
            return find(repo, config_name, overrides, prepend_hydra, skip_missing)
        if key not in lists:
            found = find(repo, config_name, overrides, prepend_hydra, skip_missing)
            lists[key] = (*found, copy.deepcopy(vars(overrides)))
        names, tree, then = lists[key]
        kept = {"config_overrides": overrides.config_overrides}
        vars(overrides).update(copy.deepcopy(then) | kept)
        return Merged.of(names, key), tree

    def merge_once(self, defaults, repo):
        if not isinstance(defaults, Merged):
            return merge(self, defaults, repo)
        key = (defaults.depend_on, *(_schema(each.config_path) for each in defaults))
        if key not in merged:
            merged[key] = merge(self, defaults, repo)
        return copy.deepcopy(merged[key])

    patch.setattr(defaults_list, "_create_defaults_list", find_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)


def _all_shipped(repo, overrides) -> bool:
    """Whether nothing but the package's own files and classes, and Hydra's, may be chosen."""
    sources = [(source.scheme(), source.path) for source in repo.get_sources()]
    folders = [path for scheme, path in sources if scheme not in _OF_PACKAGES]
    chosen = overrides.override_choices.values()
    return (
        folders == [str(configs_dir())]
        and not (overrides.append_group_defaults or overrides.deletions)
        and all(isinstance(choice, str) and ":" not in choice for choice in chosen)
        and not any(plugged_in_names(group) for group in (ENV, *TABLES))
    )


_OF_PACKAGES = ("plugins", "pkg", "schemas", "structured")
