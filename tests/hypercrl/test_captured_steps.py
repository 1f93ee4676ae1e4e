"""Training steps that a GPU takes several a graph come to what they come to one by one."""

import copy
from functools import cache
from typing import cast

import pytest
import torch
from killed_runs import assert_same
from omegaconf import OmegaConf
from tiny_runs import FEW_STEPS

from hypercrl.base.cuda_graph import CapturedFunction, CapturedSteps
from hypercrl.config.compose import composed, with_effect
from hypercrl.config.schema import TrainConfig
from hypercrl.methods import METHODS
from hypercrl.training.experiment import build
from hypercrl.training.learner import Learner

ROUNDS = (7, 23, 1, 15)
"""Training steps of the rounds of a task: before a graph of one step, of several, and after."""


class Again:
    """In place of a graph: runs the function anew, on the same inputs into the same outputs."""

    def __init__(self, captured):
        self.captured = captured

    def replay(self):
        found = self.captured.function(*self.captured._inputs)
        if not self.captured._outputs:
            self.captured._outputs = tuple(map(torch.clone, found))
        for own, value in zip(self.captured._outputs, found, strict=True):
            own.copy_(value)


def capture(self, inputs):
    self._inputs = [value.clone() for value in inputs]
    self._graph = Again(self)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(CapturedFunction, "_eager", lambda self, inputs: self.function(*inputs))
    monkeypatch.setattr(CapturedFunction, "_capture", capture)


@pytest.fixture
def graphs_on_a_cpu(stand_in, monkeypatch):
    prepare = Learner.prepare

    def prepared(self):
        prepare(self)
        self._training_steps = CapturedSteps(self._step_on_slots, self.samplers)

    monkeypatch.setattr(Learner, "prepare", prepared)


def test_steps_are_taken_in_turn_and_ten_in_a_launch(stand_in):
    generator = torch.Generator().manual_seed(0)
    found = []

    def step(row):
        found.append((row + torch.rand((), generator=generator)).item())
        return (torch.tensor(found[-1]),)

    rows, steps = torch.arange(37.0), CapturedSteps(step)
    left, taken = rows, []
    while len(left):
        count, (latest,) = steps(left)
        assert latest == found[-1]
        left = left[count:]
        taken.append(count)
    assert taken == [1, 1, 1, 1, 10, 10, 10, 1, 1, 1]
    drawn = torch.rand(37, generator=torch.Generator().manual_seed(0))
    assert found == (rows + drawn).tolist()


@cache
def configured(*words):
    return composed("train", with_effect("train", ["env=push", *FEW_STEPS, *words]))


def made(*words):
    return build(cast(TrainConfig, OmegaConf.to_object(configured(*words))))


def add(learner, count, generator):
    """Transitions of an episode whose scales are those of nothing real."""
    learner.replay.begin_episode()
    for _ in range(count):
        obs = torch.randn(1, 10, generator=generator)
        action = 2 * torch.rand(1, 2, generator=generator) - 1
        learner.add(obs, action, obs + 0.1 * action.repeat(1, 5))


def taught(*words, tasks=2):
    """What there is of an agent after rounds of training on a replay that fills in between."""
    experiment = made(*words)
    learner, generator = Learner(experiment), torch.Generator().manual_seed(1)
    reports = []
    for _ in range(tasks):
        learner.begin_task()
        add(learner, 24, generator)
        learner.fit_normalisers()
        for steps in ROUNDS:
            reports.append(learner.train(steps, "a task"))
            add(learner, 7, generator)
        learner.observe()
        learner.end_task()
    return [reports, everything(experiment, learner)]


def everything(experiment, learner):
    states = [experiment.method.state(), learner.state(), experiment.streams.state()]
    return copy.deepcopy(states)


CASES = {
    "old tasks that are drawn": ("method=hnet", "method.regularised_tasks=1"),
    "an ensemble": ("method=hnet", "method.members=3", "planner.risk=cvar"),
    "rehearsal": ("method=coreset",),
    "a value behind plans": ("method=single", "value.kind=td", "value.updates=2"),
    "windows for a memory": ("method=si", "memory=gru", "context.burn_in=4", "context.horizon=2"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_agent_learns_the_same_whatever_a_graph_holds(case, request):
    one_by_one = taught(*CASES[case])
    request.getfixturevalue("graphs_on_a_cpu")
    assert_same(taught(*CASES[case]), one_by_one)


@pytest.mark.parametrize("pauses", [2, 6])
def test_a_round_that_is_broken_off_between_graphs_goes_on_the_same(pauses, graphs_on_a_cpu):
    """Where the fresh graphs of the agent that goes on hold other steps than those did."""
    words, saved = CASES["old tasks that are drawn"], []

    def begun():
        experiment = made(*words)
        learner, generator = Learner(experiment), torch.Generator().manual_seed(1)
        for _ in range(2):
            learner.begin_task()
            add(learner, 24, generator)
        learner.fit_normalisers()
        return experiment, learner

    straight, learner = begun()
    learner.train(37, "a task")
    wanted = everything(straight, learner)

    class Stop(Exception):
        pass

    experiment, learner = begun()

    def pause():
        saved.append(everything(experiment, learner))
        if len(saved) == pauses:
            raise Stop

    with pytest.raises(Stop):
        learner.train(37, "a task", pause)
    experiment = made(*words)
    learner, (method, learned, streams) = Learner(experiment), saved[-1]
    experiment.method.load_state(method)
    learner.load_state(learned)
    experiment.streams.load_state(streams, experiment.device)
    learner.train(37, "a task")
    assert_same(everything(experiment, learner), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "words", [*([f"method={name}"] for name in METHODS), *CASES.values()], ids=" ".join
)
def test_a_graph_of_ten_steps_is_ten_graphs_of_one_step(words, monkeypatch):
    several = taught(*words, "device=cuda")
    monkeypatch.setattr(CapturedSteps, "AT_ONCE", 10**9)
    assert_same(taught(*words, "device=cuda"), several)
