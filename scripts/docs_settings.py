"""The page of settings: tables in Markdown of every setting, its meaning and its default."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.paths import configs_dir
from hypercrl.base.settings import meaning
from hypercrl.config.help import Setting, describe
from hypercrl.config.schema import ExportConfig, PlayConfig, RecallConfig, TrainConfig
from hypercrl.memory import MEMORIES, MemoryConfig
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS, PlannerConfig

PRESETS = ("smoke", "quick", "standard", "paper")
Rows = Mapping[str, Setting]


def settings_tables() -> str:
    """Everything but the command's own words of bench, report and tasks."""
    parts = ["## Of a run", table({"default": rows(TrainConfig)})]
    for f in fields(TrainConfig):
        if f.name in ("method", "memory", "planner"):
            parts += [f"## {f.name}", *CHOICES[f.name]()]
        elif is_dataclass(f.type):
            columns = {"default": rows(f.type, f.name)}
            if f.name == "protocol":
                columns |= {name: rows(f.type, f.name, _preset(name)) for name in PRESETS}
            parts += [f"## {f.name}", f"{_sentence(meaning(TrainConfig, f.name))}", table(columns)]
    parts += ["## Of play", table({"default": rows(PlayConfig)})]
    parts += ["## Of export", table({"default": rows(ExportConfig)})]
    recall = {"default": rows(RecallConfig)}
    recall |= {name: rows(RecallConfig, "", _yaml("recall", name)) for name in ("smoke", "quick")}
    parts += ["## Of recall", table(recall)]
    return "\n\n".join(parts)


def rows(schema: Any, prefix: str = "", values: Mapping[str, Any] | None = None) -> Rows:
    """Per field of the dataclass what there is to say; with these values in place of defaults."""
    node = OmegaConf.structured(schema)
    names = {f.name for f in fields(schema)}
    mine = {key: value for key, value in (values or {}).items() if key in names}
    merged = OmegaConf.merge(node, mine)
    assert isinstance(merged, DictConfig)
    dot = f"{prefix}." if prefix else ""
    return {
        f.name: describe(merged, f, dot)
        for f in fields(schema)
        if not (isinstance(f.type, type) and is_dataclass(f.type)) and f.name != "name"
    }


def table(columns: Mapping[str, Rows], only: Sequence[str] | None = None) -> str:
    """One row a setting, one column of values a name."""
    (first, *_) = columns.values()
    lines = [f"| setting | meaning | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for name, setting in first.items():
        if only is None or name in only:
            values = (column[name].value for column in columns.values())
            cells = " | ".join(f"`{value}`" if value else "–" for value in values)
            lines.append(f"| `{setting.key}` | {setting.text} | {cells} |")
    return "\n".join(lines)


def _methods() -> list[str]:
    """Methods that share a dataclass share a table."""
    parts: list[str] = [_sentence(meaning(TrainConfig, "method"))]
    schemas = dict.fromkeys(schema for _, schema in METHODS.values())
    for schema in schemas:
        names = [name for name, (_, its) in METHODS.items() if its is schema]
        columns = {name: rows(schema, "method", _yaml("method", name)) for name in names}
        parts += [f"### {', '.join(names)}", table(columns)]
    return parts


def _memories() -> list[str]:
    shared = rows(MemoryConfig, "memory")
    parts = [
        _sentence(meaning(TrainConfig, "memory")),
        "### All encoders",
        table({"default": shared}),
    ]
    for name, (_, schema) in MEMORIES.items():
        own = rows(schema, "memory", _yaml("memory", name))
        only = [key for key in own if key not in shared or own[key].value != shared[key].value]
        if only:
            parts += [f"### {name}", table({"default": own}, only)]
    return parts


def _planners() -> list[str]:
    shared = rows(PlannerConfig, "planner")
    columns = {"default": shared}
    columns |= {name: rows(PlannerConfig, "planner", _preset(name, "planner")) for name in PRESETS}
    parts = [_sentence(meaning(TrainConfig, "planner")), "### All planners", table(columns)]
    for name, (_, schema) in PLANNERS.items():
        own = rows(schema, "planner", _yaml("planner", name))
        if only := [key for key in own if key not in shared]:
            parts += [f"### {name}", table({"default": own}, only)]
    return parts


CHOICES = {"method": _methods, "memory": _memories, "planner": _planners}


def _preset(name: str, group: str = "protocol") -> Mapping[str, Any]:
    """A preset's part, with those of the presets that it begins from."""
    preset = _yaml("preset", name)
    values: dict[str, Any] = {}
    for base in preset.get("defaults", []):
        values |= _preset(base, group)
    return values | dict(preset.get(group, {}))


def _yaml(group: str, name: str) -> Mapping[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.load(configs_dir() / group / f"{name}.yaml"))
    return values


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
