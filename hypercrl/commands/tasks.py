"""hypercrl tasks: the task sequences there are, and what varies in them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import to_json
from hypercrl.config.compose import composed
from hypercrl.config.overrides import override
from hypercrl.config.sources import (
    ENV,
    files,
    load_file,
    no_tasks,
    plugged_in_names,
    plugged_in_sequence,
)
from hypercrl_envs.registry import find_task

_LEARNED = "(learned)"
"""Beside the parameters: what the model learns as no function of it is given."""

USAGE = """usage: hypercrl tasks [SEQUENCE ...]

Lists task sequences and their parameters.

  SEQUENCE                a value of env=; by default all of them"""


def run(words: Sequence[str]) -> None:
    """Print every sequence there is, or only those named: files, and tasks that are plugged in."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    written, installed = files(ENV), plugged_in_names(ENV)
    names = [*written, *installed]
    for name in words:
        if name not in names and (meant := name.removeprefix(f"{ENV}=")) != name:
            raise UserError(f"tasks takes sequences as they are: hypercrl tasks {meant}")
        if name not in names and ":" not in name:
            raise UserError(f"there is no sequence {name!r}. Sequences: {', '.join(names)}.")
    console = Console(markup=False)
    for name in words or names:
        tasks = _tasks(name, written.get(name))
        about = _comment(written[name].read_text(encoding="utf-8")) if name in written else ""
        console.print(Text.assemble((f"env={name}", "bold"), f"  {about}"))
        console.print(_table(tasks, console))


def _tasks(name: str, path: Path | None) -> list[dict[str, Any]]:
    """The tasks of a sequence in a file, or of one task that is plugged in.

    Raises:
        UserError: there are none.
    """
    if path is None:
        return plugged_in_sequence(name)["tasks"]
    written = load_file(path)
    if "defaults" in written:  # of other sequences
        written = composed("train", [override(ENV, name)]).env
    tasks: Any = OmegaConf.to_container(written).get("tasks")  # type: ignore[union-attr]
    if not (isinstance(tasks, list) and tasks and all(map(_is_task, tasks))):
        raise UserError(no_tasks(path))
    return tasks


def _is_task(spec: Any) -> bool:
    return isinstance(spec, dict) and "task" in spec and all(isinstance(key, str) for key in spec)


def _table(tasks: Sequence[Mapping[str, Any]], console: Console) -> Table:
    """A column a parameter, or where that is too wide all in one, a line each."""
    parameters = list(dict.fromkeys(key for task in tasks for key in task if key != "task"))
    told = [{key: _text(value) for key, value in task.items()} for task in tasks]
    for task, values in zip(tasks, told, strict=True):
        if learned := _learned(task):
            values[_LEARNED] = " and ".join(learned)
    if any(_LEARNED in values for values in told):
        parameters.append(_LEARNED)
    wide = _of_columns(parameters)
    for i, values in enumerate(told, 1):
        wide.add_row(str(i), values["task"], *(values.get(key, "") for key in parameters))
    if console.measure(wide, options=console.options.update(width=10_000)).maximum <= console.width:
        return wide
    narrow = _of_columns(["parameters"])
    for i, values in enumerate(told, 1):
        lines = (f"{key}: {value}" for key, value in values.items() if key != "task")
        narrow.add_row(str(i), values["task"], "\n".join(lines))
    return narrow


def _learned(spec: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        kind = find_task(spec["task"])
    except ValueError:
        return ()  # it is listed as it is written; who trains on it is told what is wrong
    return kind.learned_parts(spec)


def _of_columns(parameters: Sequence[str]) -> Table:
    table = Table()
    for column in ("#", "task", *parameters):
        side = "right" if column == "#" else "left"
        table.add_column(column, justify=side, overflow="fold", min_width=len(column))
    return table


def _text(value: Any) -> str:
    """A parameter as a file may have it, on one line."""
    return value if isinstance(value, str) else to_json(value)


def _comment(text: str) -> str:
    """What the file says of itself before anything else, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
