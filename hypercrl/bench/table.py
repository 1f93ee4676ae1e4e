"""The live table of a grid."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hypercrl.base.terminal import whole
from hypercrl.bench.cell import Progress, Status

STYLE = {
    Status.WAITING: "dim",
    Status.RUNNING: "cyan",
    Status.DONE: "green",
    Status.FAILED: "bold red",
}
ORDER = (Status.RUNNING, Status.FAILED, Status.DONE, Status.WAITING)
"""What moves, and what went wrong, comes first: a long table is cut at its end."""


def progress_table(board: Sequence[Progress], console: Console) -> Table:
    """All cells, those that run first, with how far each is."""
    counts = Counter(progress.status for progress in board)
    title = ", ".join(f"{counts[status]} {status.value}" for status in ORDER if counts[status])
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("cell", overflow="fold")
    for name in ("status", "attempt", "task", "steps", "seconds", "last trouble"):
        table.add_column(name, justify="left" if name in ("status", "last trouble") else "right")
    for progress in sorted(board, key=lambda p: ORDER.index(p.status)):
        seconds = progress.seconds
        task, steps = "", ""
        if progress.status is Status.RUNNING:
            seconds += time.monotonic() - progress.started
            if position := progress.cell.progress():
                task, steps = map(str, position)
        table.add_row(
            progress.cell.name,
            progress.status.value,
            str(progress.attempts or ""),
            task,
            steps,
            f"{seconds:.0f}" if progress.attempts else "",
            progress.reason[:60],
            style=STYLE[progress.status],
        )
    return whole(console, table)
