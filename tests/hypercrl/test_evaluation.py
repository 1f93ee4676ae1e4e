"""Whose robots are planned for in an evaluation while those in other tasks move."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from hypercrl.training.durations import Durations
from hypercrl.training.evaluation import Evaluator


class Played:
    """Stands for the episodes of a task, which end after so many steps; notes what it does."""

    def __init__(self, board, task, steps):
        self.board, self.task, self.left, self.going = board, task, steps, [0]
        self.agent = SimpleNamespace(plan_seconds=[])
        board.state[task] = "moves"

    def plan(self):
        assert self.board.state[self.task] == "moves"
        self.board.note("plan")
        if not self.left:
            self.going = []
        self.board.state[self.task] = "planned" if self.going else "over"

    def move(self):
        assert self.board.state[self.task] == "planned"
        self.board.note("move")
        self.board.state[self.task] = "moves"
        self.left -= 1


class Board:
    def __init__(self):
        self.state, self.seen = {}, []

    def note(self, what):
        states = list(self.state.values())
        self.seen.append((what, states.count("planned"), states.count("moves")))


def played(lengths):
    board, pauses = Board(), []
    evaluator = Evaluator.__new__(Evaluator)
    evaluator.plan_seconds = Durations()
    evaluator.pause = lambda: pauses.append(len(board.seen))
    episodes: list[Any] = [Played(board, task, steps) for task, steps in enumerate(lengths)]
    evaluator._play(episodes)
    assert set(board.state.values()) == {"over"}
    return board.seen, pauses


@pytest.mark.parametrize("lengths", [[6], [6, 6], [5, 5, 5], [1, 4, 9, 0, 2], [7] * 8])
def test_each_task_is_played_to_its_end_with_a_pause_in_every_round(lengths):
    seen, pauses = played(lengths)
    assert [what for what, *_ in seen].count("move") == sum(lengths)
    assert [what for what, *_ in seen].count("plan") == sum(lengths) + len(lengths)
    between = [after - before for before, after in pairwise(pauses)]
    assert max(between) <= 2 * len(lengths)


@pytest.mark.parametrize("tasks", [2, 3, 5, 8])
def test_most_tasks_move_while_one_or_two_others_are_planned_for(tasks):
    seen, _ = played([20] * tasks)
    settled = seen[4 * tasks : -4 * tasks]
    waiting_for_robots = {moves for what, _, moves in settled if what == "plan"}
    waiting_for_plans = {planned for what, planned, _ in settled if what == "move"}
    # Whoever is waited for is one of these; the others go on meanwhile.
    assert waiting_for_robots == {max(tasks - 1, 2)}
    assert waiting_for_plans == {min(tasks - 1, 2)}
