import io

import pytest
from rich.console import Console

from hypercrl.base.progress import EVERY, SHOWN_APART, Progress


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


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is():
    """By hand: 60 of 180 steps in 30 s are two a second, and the others take a minute."""
    console, clock = Console(file=io.StringIO(), width=80), Clock()
    assert isinstance(console.file, io.StringIO)
    with Progress(console, 3, clock) as progress:
        progress.start_task(1, "push 100 | 500 kg/m³", 180, done=0)
        progress.show_score(0, 0.5)
        progress.show(loss=0.125)
        for step in range(1, 61):
            clock.now = step * EVERY / 60
            progress.advance(step)
        progress.doing("evaluating task 1 of 2")
        clock.now += EVERY
        progress.tick()
    assert console.file.getvalue().splitlines() == [
        "task 2/3 push 100 | 500 kg/m³, 60/180 steps, 2 steps/s, 0:01:00 left of the task, "
        "success [0.5], loss 0.125",
        "task 2/3 push 100 | 500 kg/m³, 60/180 steps, evaluating task 1 of 2, success [0.5], "
        "loss 0.125",
    ]


def shown(progress: Progress) -> str:
    """Its bars, as a terminal of the same width has them."""
    console = Console(file=io.StringIO(), width=progress.console.width, legacy_windows=False)
    console.print(progress._rich.get_renderable())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_at_any_width_the_bar_and_the_time_left_stand_whole(columns):
    console, clock = Console(file=io.StringIO(), force_terminal=True, width=columns), Clock()
    with Progress(console, 3, clock) as progress:
        progress.start_task(0, "push 100 | 500 kg/m³, frame 90°", 1800, done=0)
        for step in range(1, 901):
            clock.now = step / 2
            progress.advance(step)
        progress.show_score(0, 1.0)
        progress.show_score(1, 0.5)
        progress.show(loss=0.0123, plan_ms=123.4)
        line = shown(progress)
        assert line.count("\n") == 1
        assert line.count("━") == (12 if columns >= 120 else 6), "half of it, as the steps are"
        assert " 900/1800" in line
        assert "0:07:30" in line
        assert ("success [1.0 0.5]" in line) == (columns >= 80)
        assert ("plan_ms 123" in line) == (columns >= 140)
        progress.advance(1800)
        progress.doing("evaluating task 1 of 2")
        line = shown(progress)
        assert "1800/1800" in line
        assert ("evaluating task 1 of 2" if columns >= 80 else "evaluati…") in line
