"""Which episodes an evaluation plays, and whose robots are planned for while others move."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hypercrl.agent.belief import Told
from hypercrl.agent.exploration import ExplorationConfig
from hypercrl.planning import CEMConfig, make_planner
from hypercrl.training.durations import Durations
from hypercrl.training.evaluation import Evaluator
from hypercrl_envs import LocalFleet, TaskSequence
from hypercrl_envs.double_integrator import DoubleIntegratorTask


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


def evaluated(seed, *keys):
    """Scores of two tasks at these keys, and each one's seeds of starts [2 tasks x 3 episodes]."""
    tasks = [{"task": "double_integrator"}, {"task": "double_integrator", "reversed_axes": ["x"]}]
    planner = make_planner(
        CEMConfig(samples=6, elites=2, horizon=2, iterations=1), -torch.ones(2), torch.ones(2)
    )
    fleet = LocalFleet(TaskSequence(tasks, "two"))
    evaluator = Evaluator(fleet, planner, seed, ExplorationConfig(), 2, 1, 0)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in ((8, 6), (4, 8))]
    layers = [(weight, torch.zeros(len(weight))) for weight in weights]
    scores, starts = [], []
    reset = DoubleIntegratorTask.reset
    with pytest.MonkeyPatch.context() as patch:

        def watched(self, *, seed=None, options=None):
            starts[-1].append(seed)
            return reset(self, seed=seed, options=options)

        patch.setattr(DoubleIntegratorTask, "reset", watched)
        for key in keys:
            starts.append([])
            believe = {task: lambda _: Told(layers) for task in range(2)}
            scores.append(evaluator.evaluate(believe, 3, key))
    evaluator.close()
    return scores, [seeds[:6] for seeds in starts]  # behind them are held-out episodes


def test_every_episode_has_a_start_of_its_own_and_the_same_at_every_evaluation():
    scores, starts = evaluated(0, 7, 7, 8)
    assert len(set(starts[0])) == 6
    assert starts[0] == starts[1] == starts[2]
    assert not set(starts[0]) & set(evaluated(1, 7)[1][0])
    # The key seeds the planner's noise alone.
    assert scores[0] == scores[1]
    for now, other in zip(scores[0], scores[2], strict=True):
        assert now.episode_return != other.episode_return
        assert now.prediction_error == other.prediction_error
