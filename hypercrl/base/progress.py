"""What a person sees while a run goes on."""

import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SHOWN_APART = 10
"""Tasks whose success is shown one by one; of more of them it is the mean."""

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""

_WIDE = 120
"""Columns from which on there is room for a long bar."""


class Progress:
    """A live bar with the latest figures; without a terminal, a line now and then, and one per
    finished task.

    Args:
        console: where to write.
        tasks: number of tasks in the sequence.
        clock: seconds since any time.
    """

    def __init__(
        self, console: Console, tasks: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self.tasks = tasks
        self._success: dict[int, float] = {}
        self._figures: dict[str, float] = {}
        self._caption = ""
        self._doing = ""
        self._done = self._steps = 0
        self._clock = clock
        self._said = clock(), 0
        self._bar: TaskID | None = None
        wide = console.width >= _WIDE
        self._rich = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if wide else 12),
            TextColumn("{task.completed:>5.0f}/{task.total:.0f}" + " steps" * wide),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="cyan", markup=False),
            console=console,
            disable=not console.is_terminal,
            get_time=clock,
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
        self._done, self._steps, self._doing = done, steps, ""
        self._said = self._clock(), done
        shown = _cut(self._caption, 3 * self.console.width // 10)
        self._bar = self._rich.add_task(shown, total=steps, completed=done, figures="")

    def advance(self, done: int) -> None:
        """`done` steps of the task are done."""
        self._done = done
        if self._bar is not None:
            self._rich.update(self._bar, completed=done)
        self.tick()

    def tick(self) -> None:
        """Time has passed; to be called at least every few seconds."""
        since, done = self._said
        now = self._clock()
        if self.console.is_terminal or not self._caption or now - since < EVERY:
            return
        self._said = now, self._done
        rate = (self._done - done) / (now - since)
        pace = ""
        if rate and self._done < self._steps:
            left = _minutes((self._steps - self._done) / rate)
            pace = f"{rate:.3g} steps/s, {left} left of the task"
        steps = f"{self._caption}, {self._done}/{self._steps} steps"
        said = [steps, self._doing, pace, *self._parts()]
        line = ", ".join(filter(None, said))
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def doing(self, what: str) -> None:
        """What the run is about while no steps are taken; "" once they are again."""
        self._doing = what
        self._refresh()
        self.tick()

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
            self._rich.update(self._bar, figures=self._fitting())

    def _fitting(self) -> str:
        """What there is room for behind the bars, the most important first."""
        names = max(len(task.description) for task in self._rich.tasks)
        steps = max(len(f"{task.total:.0f}") for task in self._rich.tasks)
        wide = self.console.width >= _WIDE
        taken = names + (24 if wide else 12) + max(steps, 5) + 1 + steps + 6 * wide + _TIME + 4
        room = max(0, self.console.width - taken)
        shown = _cut(self._doing, room)
        for part in self._parts():
            longer = f"{shown}  {part}" if shown else part
            if len(longer) > room:
                break
            shown = longer
        return shown

    def _parts(self) -> Sequence[str]:
        """Success, if there is any, and the figures."""
        figures = [f"{name} {value:.3g}" for name, value in self._figures.items()]
        return [success, *figures] if (success := self._success_so_far()) else figures

    def _success_so_far(self) -> str:
        known = {task: one for task, one in self._success.items() if not math.isnan(one)}
        if not known:
            return ""
        success = " ".join(
            f"{known[task]:.1f}" if task in known else "–" for task in sorted(self._success)
        )
        if len(self._success) > SHOWN_APART:
            success = f"{sum(known.values()) / len(known):.2f}, mean of {len(known)} tasks"
        return f"success [{success}]"

    def _report_finished(self) -> None:
        if self._caption and not self.console.is_terminal:
            said = ": ".join(filter(None, (self._caption, "  ".join(self._parts()))))
            self.console.print(said, markup=False, soft_wrap=True)


_TIME = len("0:00:00")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"[:width]


def _minutes(seconds: float) -> str:
    """
    >>> _minutes(3725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
