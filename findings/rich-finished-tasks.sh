#!/usr/bin/env bash
# rich 14.1.0, Progress
#
# Guess: of a task of a progress bar that is over, no more is kept than is shown: a bar for hundreds
# of tasks one after another stays small.
# Seen: every finished task keeps the times of up to a thousand of its last updates, which its speed
# was reckoned from, as long as the Progress lives: about 100 kB a task. What frees them is reset,
# which starts the task anew, or remove_task, which takes its line away.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet rich==14.1.0
venv/bin/python - <<'PY'
import gc, io, tracemalloc

from rich.console import Console
from rich.progress import Progress


def kept(tasks, updates):
    """Bytes for each task, once all are finished."""
    progress = Progress(console=Console(file=io.StringIO()))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(tasks):
        task = progress.add_task("", total=updates)
        for done in range(updates):
            progress.update(task, completed=done + 1)
    assert progress.finished
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / tasks


few, many, more = kept(40, 1), kept(40, 1000), kept(40, 4000)
print(f"bytes kept of a finished task: {few:.0f} of 1 update, {many:.0f} of 1000, {more:.0f} of 4000")
assert many > 10 * few and more < 1.5 * many, "it behaves otherwise now"
PY
