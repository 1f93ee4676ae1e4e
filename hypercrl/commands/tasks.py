"""hypercrl tasks: the task sequences there are, and what varies in them."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
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
        console.print(_table(name, _comment(files[name].read_text()), sequence["tasks"]))


def _table(name: str, about: str, tasks: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"[bold]env={name}[/]  {about}", title_justify="left", title_style="")
    parameters = list(dict.fromkeys(key for task in tasks for key in task if key != "task"))
    for column in ("#", "task", *parameters):
        table.add_column(column, justify="right" if column == "#" else "left")
    for i, task in enumerate(tasks, 1):
        table.add_row(str(i), task["task"], *(str(task.get(key, "")) for key in parameters))
    return table


def _comment(text: str) -> str:
    first = text.splitlines()[0]
    return first.lstrip("# ") if first.startswith("#") else ""
