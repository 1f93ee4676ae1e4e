"""hypercrl tasks: the task sequences there are, and what varies in them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import to_json
from hypercrl.config.sources import (
    ENV,
    files,
    load_file,
    plugged_in_names,
    plugged_in_sequence,
)

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
        if name not in names and ":" not in name:
            raise UserError(f"there is no sequence {name!r}. Sequences: {', '.join(names)}.")
    console = Console()
    for name in words or names:
        about = _comment(written[name].read_text(encoding="utf-8")) if name in written else ""
        title = f"[bold]env={escape(name)}[/]  {escape(about)}"
        console.print(title, highlight=False)
        console.print(_table(_tasks(name, written.get(name)), console))


def _tasks(name: str, path: Path | None) -> list[dict[str, Any]]:
    """The tasks of a sequence in a file, or of one task that is plugged in.

    Raises:
        UserError: there are none.
    """
    if path is None:
        return plugged_in_sequence(name)["tasks"]
    tasks: Any = OmegaConf.to_container(load_file(path)).get("tasks")  # type: ignore[union-attr]
    if not (isinstance(tasks, list) and all(isinstance(t, dict) and "task" in t for t in tasks)):
        raise UserError(f"{path} is to have `tasks:`, a list of {{task: NAME, …}}.")
    return tasks


def _table(tasks: Sequence[Mapping[str, Any]], console: Console) -> Table:
    """A column a parameter, or where that is too wide all in one, a line each."""
    parameters = list(dict.fromkeys(key for task in tasks for key in task if key != "task"))
    told = [{k: _text(v) for k, v in task.items() if k != "task"} for task in tasks]
    wide = _of_columns(parameters)
    for i, (task, values) in enumerate(zip(tasks, told, strict=True), 1):
        wide.add_row(str(i), task["task"], *(escape(values.get(key, "")) for key in parameters))
    if console.measure(wide, options=console.options.update(width=10_000)).maximum <= console.width:
        return wide
    narrow = _of_columns(["parameters"])
    for i, (task, values) in enumerate(zip(tasks, told, strict=True), 1):
        lines = (f"{key}: {value}" for key, value in values.items())
        narrow.add_row(str(i), task["task"], escape("\n".join(lines)))
    return narrow


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
