import io

import pytest
from rich.console import Console

from hypercrl.base.progress import SHOWN_APART, Progress


def test_bars_of_tasks_that_are_over_stay_full_and_keep_no_times():
    with Progress(Console(file=io.StringIO(), force_terminal=True), 3) as progress:
        for task in range(3):
            progress.start_task(task, "push", 40, done=0)
            for step in range(40):
                progress.advance(step + 1)
                progress.show(loss=1.0)
        *over, now = progress._rich.tasks
    assert [task.percentage for task in over] == [100, 100]
    assert all(task.finished and task.time_remaining == 0 for task in over)
    assert [task.speed is None for task in (*over, now)] == [True, True, False]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([(0.5, True), (0.0, False), (0.0, True)], "task 1/3 push: success [0.5 – 0.0]"),
        ([(0.0, False)], "task 1/3 push"),
        (
            [(1.0, True), (0.0, False)] * (SHOWN_APART // 2 + 1),
            "task 1/3 push: success [1.00, mean of 6 tasks]",
        ),
    ],
)
def test_a_task_without_success_is_not_said_to_fail(scores, said):
    console = Console(file=io.StringIO(), width=100)
    with Progress(console, 3) as progress:
        progress.start_task(0, "push", 40, done=0)
        for task, (success, told) in enumerate(scores):
            progress.show_score(task, success, told=told)
        progress.finish()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == said
