import io

from rich.console import Console

from hypercrl.base.progress import Progress


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
