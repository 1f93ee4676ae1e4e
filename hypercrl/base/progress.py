"""What a person sees while a run goes on."""

import math

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SHOWN_APART = 10
"""Tasks whose success is shown one by one; of more of them it is the mean."""


class Progress:
    """A live bar with the latest figures; without a terminal, one line per finished task.

    Args:
        console: where to write.
        tasks: number of tasks in the sequence.
    """

    def __init__(self, console: Console, tasks: int) -> None:
        self.console = console
        self.tasks = tasks
        self._success: dict[int, float] = {}
        self._figures: dict[str, float] = {}
        self._caption = ""
        self._bar: TaskID | None = None
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>5.0f}/{task.total:.0f} steps"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="cyan", markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Progress":
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def start_task(self, task: int, caption: str, steps: int, done: int) -> None:
        """Task `task` (from 0) begins, or goes on with `done` of its steps behind it."""
        self._report_finished()
        if self._bar is not None:
            self._end_bar(self._bar)
        self._caption = f"task {task + 1}/{self.tasks} {caption}"
        self._bar = self._rich.add_task(self._caption, total=steps, completed=done, figures="")

    def advance(self, done: int) -> None:
        """`done` steps of the task are done."""
        if self._bar is not None:
            self._rich.update(self._bar, completed=done)

    def show(self, **figures: float) -> None:
        """New figures to show beside the bar."""
        self._figures |= figures
        self._refresh()

    def show_score(self, task: int, success: float, *, told: bool = True) -> None:
        """Latest success rate on task `task` (from 0), which is `told` where there is such a thing
        in the task."""
        self._success[task] = success if told else math.nan
        self._refresh()

    def finish(self) -> None:
        """The last task has ended."""
        self._report_finished()

    def _end_bar(self, bar: TaskID) -> None:
        """Leave it full. Rich would keep the times of its last thousand steps for ever."""
        (total,) = (task.total for task in self._rich.tasks if task.id == bar)
        self._rich.reset(bar, completed=int(total or 0))
        self._rich.update(bar)

    def _refresh(self) -> None:
        if self._bar is not None:
            self._rich.update(self._bar, figures=self._text())

    def _text(self) -> str:
        known = {task: one for task, one in self._success.items() if not math.isnan(one)}
        figures = "  ".join(f"{name} {value:.3g}" for name, value in self._figures.items())
        if not known:
            return figures
        success = " ".join(
            f"{known[task]:.1f}" if task in known else "–" for task in sorted(self._success)
        )
        if len(self._success) > SHOWN_APART:
            success = f"{sum(known.values()) / len(known):.2f}, mean of {len(known)} tasks"
        return f"success [{success}]  {figures}"

    def _report_finished(self) -> None:
        if self._caption and not self.console.is_terminal:
            said = ": ".join(filter(None, (self._caption, self._text())))
            self.console.print(said, markup=False)
