"""`hypercrl COMMAND --help`: every setting with its value and its meaning, in 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import Field, dataclass, fields
from math import inf
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from hypercrl.base.paths import configs_dir
from hypercrl.base.settings import exact, meaning, shown
from hypercrl.config.ignored import why_ignored
from hypercrl.config.schema import in_groups

WIDTH = 80
TEXT_FROM = 32


@dataclass(frozen=True)
class Setting:
    """One setting: where it is, what it is at, and what it is for."""

    key: str
    value: str
    """As one would give it; empty where it has to be given, or is too long to show."""
    about: str
    limits: str

    @property
    def text(self) -> str:
        return f"{self.about} ({self.limits})".lstrip() if self.limits else self.about


def command_help(command: str, about: str, words: Sequence[str]) -> str:
    """The settings of a command, with the values that these words, KEY=VALUE, make of them.

    Those that have no effect with what is chosen are left out, or say what gives them one.

    Raises:
        HydraException, OmegaConfBaseException: words that make no configuration.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose(command, in_groups(command, words), return_hydra_config=True)
        choices = list(_choices(command, config))
    parts = [f"usage: hypercrl {command} [KEY=VALUE ...]\n\n{about[0].upper()}{about[1:]}."]
    schema: Any = OmegaConf.get_type(config)
    if choices:
        rows = [_row(f"{k}={now}", f"{meaning(schema, k)}: {all_}") for k, now, all_ in choices]
        parts.append("\n".join(["choices, and what else there is", *rows]))
    names = {name for name, _, _ in choices}
    for heading, settings in sections(config):
        whys = {s: why_ignored(config, s.key) for s in settings if s.key not in names}
        gives = {s: why.give if why else "" for s, why in whys.items() if not why or why.give}
        if len(of_all := set(gives.values())) == 1:  # it is said once, in the heading
            (give,) = of_all
            heading = heading if give in heading else _only_with(heading, give)
            gives = dict.fromkeys(gives, "")
        if rows := [_row(_given(s), _only_with(s.text, give)) for s, give in gives.items()]:
            parts.append("\n".join([*textwrap.wrap(heading, WIDTH), *rows]))
    if choices:
        example = "method=ewc" if "method" in names else "memory=gla"
        parts.append(
            f"Another choice has other settings: hypercrl {command} {example} --help\n"
            f"The whole configuration as YAML: hypercrl {command} --cfg job"
        )
    return "\n\n".join(parts)


def _only_with(text: str, give: str) -> str:
    return f"{text} [only with {give}]".lstrip() if give else text


def sections(config: DictConfig) -> Iterator[tuple[str, list[Setting]]]:
    """A heading and its settings: first those that stand alone, then group by group."""
    schema: Any = OmegaConf.get_type(config)
    groups = [f.name for f in fields(schema) if _is_group(config, f.name)]
    alone = [f for f in fields(schema) if f.name not in groups]
    yield "settings", [describe(config, f) for f in alone]
    for name in groups:
        node: Any = config[name]
        inner: Any = OmegaConf.get_type(node)
        text = meaning(schema, name)
        yield f"{name}: {text}", [describe(node, f, f"{name}.") for f in fields(inner)]


def describe(node: DictConfig, f: "Field[Any]", prefix: str = "") -> Setting:
    """A field of a configuration's dataclass, with the value that it has there."""
    schema: Any = OmegaConf.get_type(node)
    value = ""
    if not OmegaConf.is_missing(node, f.name):
        inner: Any = node._get_node(f.name)  # raw: the time of day is not asked for
        value = shown(
            OmegaConf.to_container(inner) if OmegaConf.is_config(inner) else inner._value()
        )
    return Setting(prefix + f.name, value, meaning(schema, f.name), limits(f))


def limits(f: "Field[Any]") -> str:
    """What the field may be: "≥1", "0 to 1", "mean, best"; or nothing."""
    if values := f.metadata.get("values"):
        return ", ".join(values)
    least, most = f.metadata.get("least", -inf), f.metadata.get("most", inf)
    if least > -inf and most < inf:
        return f"{exact(least)} to {exact(most)}"
    return f"≥{exact(least)}" if least > -inf else f"≤{exact(most)}" if most < inf else ""


def _is_group(config: DictConfig, name: str) -> bool:
    return not OmegaConf.is_missing(config, name) and isinstance(config._get_node(name), DictConfig)


def _choices(command: str, config: DictConfig) -> Iterator[tuple[str, str, str]]:
    """Names of the groups, what is chosen, and what else there is."""
    schema: Any = OmegaConf.get_type(config)
    chosen, loader = config.hydra.runtime.choices, GlobalHydra.instance().config_loader()
    for name in (f.name for f in fields(schema)):
        (group,) = in_groups(command, [f"{name}="])
        if (group := group.rstrip("=")) in chosen:
            yield name, chosen[group], ", ".join(loader.get_group_options(group))


def _given(setting: Setting) -> str:
    return f"{setting.key}={setting.value}" if setting.value else setting.key


def _row(left: str, text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - TEXT_FROM, break_on_hyphens=False) or [""]
    head = f"  {left}"
    if len(head) < TEXT_FROM - 1:
        head = f"{head:{TEXT_FROM}}{lines.pop(0)}".rstrip()
    return "\n".join([head, *(" " * TEXT_FROM + line for line in lines)])
