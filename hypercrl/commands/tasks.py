"""hypercrl tasks: the task sequences there are, and what varies in them."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir

USAGE = """usage: hypercrl tasks [SEQUENCE ...]

Lists task sequences and their parameters.

  SEQUENCE                a value of env=; by default all of them"""


def run(words: Sequence[str]) -> None:
    """Print every sequence under configs/env, or only those named."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    files = {path.stem: path for path in sorted((configs_dir() / "env").glob("*.yaml"))}
    for name in words:
        if name not in files:
            raise UserError(f"there is no sequence {name!r}. Sequences: {', '.join(files)}.")
    console = Console()
    for name in words or files:
        sequence: Any = OmegaConf.to_container(OmegaConf.load(files[name]))
        about = escape(_comment(files[name].read_text()))
        console.print(f"[bold]env={name}[/]  {about}", highlight=False, soft_wrap=True)
        console.print(_table(sequence["tasks"]))


def _table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    table = Table()
    parameters = list(dict.fromkeys(key for task in tasks for key in task if key != "task"))
    for column in ("#", "task", *parameters):
        side = "right" if column == "#" else "left"
        table.add_column(column, justify=side, overflow="fold", min_width=len(column))
    for i, task in enumerate(tasks, 1):
        values = (str(task.get(key, "")) for key in parameters)
        table.add_row(str(i), task["task"], *map(escape, values))
    return table


def _comment(text: str) -> str:
    """What the file says of itself before anything else, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)
