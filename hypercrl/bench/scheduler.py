"""Runs the cells of a grid until each is done or given up."""

import time
from collections import deque
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.live import Live

from hypercrl.base.gpu_faults import GPU_FAULT
from hypercrl.bench.cell import Cell, Progress, Status
from hypercrl.bench.mps import SHARED_FAULT
from hypercrl.bench.table import progress_table
from hypercrl.bench.workers import Workers

POLL_SECONDS = 0.2
EVERY = 60.0
"""Seconds between two lines on all that runs, where there is no terminal."""
NAMED = 8
"""Cells at most in such a line."""
USER_ERROR = 2
"""Exit code of a run that would end the same way again: a mistake, or a model that diverged."""


def run_grid(
    cells: Sequence[Cell], workers: Workers, retries: int, console: Console
) -> list[Progress]:
    """Run every cell whose result is not there yet.

    A cell that crashes or is killed goes on from its last checkpoint, up to `retries` times more;
    one that ends by its own decision (exit code 2) is given up at once. One whose GPU ran out of
    memory or failed (exit code 3) is tried once more behind all others, with a GPU to itself,
    another one if there is any; before that once without MPS, if it was served with others, whose
    fault it may have been. In every case the other cells go on, and the reason is left in its
    folder.

    Args:
        cells: in the order in which they are started.
        workers: who runs them.
        retries: further attempts after a crash.
        console: a live table on a terminal, else one line where a cell begins, goes on to its next
            task, or ends, and one on all that run every minute.
    """
    board = {
        cell.name: Progress(cell, Status.DONE if cell.done else Status.WAITING) for cell in cells
    }
    waiting = deque(p for p in board.values() if p.status is Status.WAITING)
    skipped = len(board) - len(waiting)
    if skipped:
        console.print(f"{skipped} of {len(board)} cells are there already", highlight=False)
    running, told = 0, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while waiting or running:
            while (progress := _next(waiting, workers)) is not None:
                waiting.remove(progress)
                if _start(progress, workers):
                    running += 1
                else:
                    _tell(progress, console)
            if not console.is_terminal:
                _tell_steps(list(board.values()), console)
                if (now := time.monotonic()) - told >= EVERY:
                    told = now
                    _tell_all(list(board.values()), console)
            for cell, code in workers.finished():
                progress = board[cell.name]
                running -= 1
                _judge(progress, code, retries)
                if progress.status is Status.WAITING:
                    waiting.append(progress)
                _tell(progress, console)
            if console.is_terminal:
                live.update(progress_table(list(board.values()), console), refresh=True)
            if waiting or running:
                time.sleep(POLL_SECONDS)
    return list(board.values())


def _next(waiting: Iterable[Progress], workers: Workers) -> Progress | None:
    """The first of those that wait that there is room for."""
    return next((p for p in waiting if workers.room(p.cell, p.alone)), None)


def _start(progress: Progress, workers: Workers) -> bool:
    """Begin an attempt; whether it has begun. A full disk costs its cell and no other."""
    progress.status = Status.RUNNING
    progress.attempts += 1
    progress.started = time.monotonic()
    try:
        workers.start(progress.cell, progress.cell.words(), progress.alone)
    except OSError as error:
        progress.status = Status.FAILED
        progress.reason = f"cannot be started: {error}"
        progress.cell.fail(progress.reason)
        return False
    return True


def _judge(progress: Progress, code: int, retries: int) -> None:
    """What becomes of a cell whose process ended with that code."""
    cell = progress.cell
    progress.seconds += time.monotonic() - progress.started
    if code == 0 and cell.done:
        progress.status = Status.DONE
        return
    progress.reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    if code >= 0 and (words := cell.last_words()):
        progress.reason += f": {words}"
    again = code != USER_ERROR and progress.attempts <= retries
    if code in (GPU_FAULT, SHARED_FAULT):
        # Libraries that end on a broken GPU may speak after us.
        progress.reason = cell.last_words("hypercrl: ").removeprefix("hypercrl: ")
        again, progress.alone = not progress.alone, code == GPU_FAULT
    if again:
        progress.status = Status.WAITING
        return
    progress.status = Status.FAILED
    cell.fail(progress.reason)


def _tell_steps(board: Sequence[Progress], console: Console) -> None:
    """What began, or came to its next task, since the last call."""
    for number, progress in enumerate(board, start=1):
        if progress.status is not Status.RUNNING:
            continue
        task, steps = progress.cell.progress() or (1, 0)
        if task > progress.task:
            progress.task = task
            line = f"{progress.cell.name} ({number} of {len(board)}): task {task}, step {steps}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell_all(board: Sequence[Progress], console: Console) -> None:
    """How many are done, and where those are that run."""
    done = sum(progress.status is Status.DONE for progress in board)
    running = [progress for progress in board if progress.status is Status.RUNNING]
    places = [(progress, progress.cell.progress() or (1, 0)) for progress in running[:NAMED]]
    said = [f"{p.cell.name} task {task}, step {steps}" for p, (task, steps) in places]
    said += [f"{len(running) - NAMED} more"] * (len(running) > NAMED)
    line = f"{done} of {len(board)} cells done; running: {'; '.join(said)}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell(progress: Progress, console: Console) -> None:
    took = f"{progress.seconds:.0f} s, attempt {progress.attempts}"
    said = {
        Status.DONE: "done",
        Status.WAITING: f"to be tried again ({progress.reason})",
        Status.FAILED: f"given up ({progress.reason})",
    }[progress.status]
    line = f"{progress.cell.name}: {said} after {took}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
