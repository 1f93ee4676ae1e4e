"""Labels given and labels inferred: when a task begins, what is learned, what is planned for."""

import copy
from dataclasses import replace
from typing import cast

import pytest
import torch
from omegaconf import OmegaConf

from hypercrl.agent.belief import Told
from hypercrl.agent.inferred_labels import InferredLabels
from hypercrl.agent.known_tasks import TaskPosterior
from hypercrl.agent.task_inference import Change, InferenceConfig
from hypercrl.agent.task_labels import Ended, GivenLabels
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, Method, make_method
from hypercrl.training.experiment import build
from hypercrl.training.learner import Learner
from hypercrl_kernels import mean_layers

CONFIG = InferenceConfig(settle=5, allowance=1.0, alarm=3.0, patience=2)
TRYING = replace(CONFIG, allowance=4.0, familiar=0.0, trial=3)


@pytest.fixture
def method() -> Method:
    """Networks of their own for two tasks, as they are drawn."""
    model = DynamicsModel(2, 1, [8], probabilistic=False)
    g = torch.Generator().manual_seed(0)
    obs, action = torch.randn(50, 2, generator=g), torch.randn(50, 1, generator=g)
    model.fit_normalisers(Batch(obs, action, obs + action))
    return make_method(model, METHODS["single"][1]("single", 1e-3, 5.0), g, g)


def same(layers, others) -> bool:
    pairs = zip(layers, others, strict=True)
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def live(labels: InferredLabels, jump: float, steps: int) -> list[Change | None]:
    """Steps of a robot that rests, or jumps; what the labels say to each."""
    belief, said = labels.training_belief(0, 1), []
    rest, action = torch.zeros(1, 2), torch.zeros(1, 1)
    for _ in range(steps):
        belief.observe(rest, action, rest + jump)
        said.append(labels.after_step())
    return said


def test_given_labels_are_the_numbers_of_the_sequence(method):
    labels = GivenLabels(method)
    for task in range(2):
        assert labels.announces(task)
        method.begin_task()
        labels.begin()
    assert labels.announces(2)  # the end of the last one
    assert labels.learns
    assert labels.keeps
    assert labels.after_step() is None
    known = [method.planner_layers(task)(None) for task in range(2)]
    assert not same(*known)
    for task in range(2):
        assert same(labels.belief(task, 3).layers(), known[task])
        assert same(labels.training_belief(task, 1).layers(), known[task])


def test_only_the_start_is_announced_where_labels_are_inferred(method):
    labels = InferredLabels(method, CONFIG)
    assert [labels.announces(task) for task in range(4)] == [True, False, False, False]


def test_inferred_labels_stop_learning_in_doubt_and_then_name_a_new_task(method):
    labels = InferredLabels(method, CONFIG)
    method.begin_task()
    labels.begin()
    assert live(labels, 0.0, CONFIG.settle) == [None] * CONFIG.settle
    assert labels.learns
    assert live(labels, 9.0, CONFIG.patience) == [None] * CONFIG.patience
    assert not labels.learns
    again = InferredLabels(method, CONFIG)
    again.load_state(copy.deepcopy(labels.state()))
    assert not again.learns
    for goes_on in (labels, again):
        assert live(goes_on, 9.0, 1) == [Change(method.tasks, CONFIG.patience + 1)]
        assert not goes_on.learns
        goes_on.begin()
        assert goes_on.learns  # what is begun now


@pytest.mark.parametrize("strange", [0, 3])
def test_what_came_in_a_doubt_is_observed_once_it_is_over(strange):
    """Also where a task of the sequence has ended in between. Steps of another task never are."""
    words = ["preset=smoke", "device=cpu", "task_id=inferred", "method=reservoir"]
    config = OmegaConf.to_object(composed("train", words))
    learner = Learner(experiment := build(cast(TrainConfig, config)))
    labels, seen = cast(InferredLabels, learner.labels), experiment.method.store.seen
    learner.begin_task()

    def add(steps: int) -> None:
        obs = torch.zeros(1, experiment.model.obs_size)
        for _ in range(steps):
            learner.add(obs, torch.zeros(1, experiment.model.action_size), obs)

    add(10)
    learner.observe()
    add(2)
    labels.inference.alarmed = 1
    assert not labels.learns
    add(3)
    learner.observe()
    assert seen == 10
    if strange:
        learner.part(strange)
        assert seen == 12
        return
    labels.inference.alarmed = 0
    add(1)
    learner.observe()
    assert seen == 16


def test_a_task_gone_back_to_is_not_trained_but_planned_for(method):
    labels = InferredLabels(method, CONFIG)
    for jump in (0.0, 9.0):
        method.begin_task()
        labels.begin()
        live(labels, jump, CONFIG.settle)
    known = [mean_layers(method.planner_layers(task)(None)) for task in range(2)]
    assert same(labels.training_belief(0, 1).layers(), known[1])  # whatever the sequence's number
    labels.inference.current = 0
    assert not labels.learns
    assert not labels.keeps
    assert same(labels.training_belief(1, 1).layers(), known[0])


def episodes(labels: InferredLabels, jump: float, count: int, paid: float = 0.0) -> list[Change]:
    """Episodes of four steps, in which every step is a little other than the last; what they say,
    a belief of the model that acts being made anew after every change."""
    rest, action = torch.zeros(1, 2), torch.zeros(1, 1)
    ended = Ended(0, paid, success=True, terminated=False, length=4)
    belief, said = labels.training_belief(0, 1), []
    for step in range(1, 4 * count + 1):
        drift = 0.01 * torch.tensor([[step % 7, step % 5]])
        belief.observe(rest, action, rest + jump + drift)
        change = labels.after_step(None if step % 4 else ended)
        if change is not None:
            said.append(change)
            belief = labels.training_belief(0, 1)
    return said


def test_before_a_new_task_begins_the_model_of_each_known_one_acts(method):
    """What they show is kept, not learned, and is what the new task begins with."""
    labels = InferredLabels(method, TRYING)
    for jump in (0.0, 9.0):
        method.begin_task()
        labels.begin()
        assert episodes(labels, jump, 6) == []
    (trial,) = episodes(labels, 90.0, 1)
    assert (trial.task, trial.decided) == (0, False)
    assert trial.strange == CONFIG.patience + 1
    assert (labels.keeps, labels.learns) == (True, False)
    known = mean_layers(method.planner_layers(0)(None))
    assert same(labels.training_belief(1, 1).layers(), known)
    again = InferredLabels(method, TRYING)
    again.load_state(copy.deepcopy(labels.state()))
    for goes_on in (labels, again):
        (change,) = episodes(goes_on, 90.0, 2, paid=-1.0)
        assert (change.task, change.decided) == (2, True)
        assert change.first == change.strange == 1 + 2 * 4
        assert change.trials == {0: 1.0}


def test_a_task_whose_trial_is_as_usual_is_gone_back_to(method):
    labels = InferredLabels(method, TRYING)
    for jump in (9.0, 0.0):
        method.begin_task()
        labels.begin()
        episodes(labels, jump, 6)
    (trial,) = episodes(labels, 9.5, 1)  # misled where a wrong one acts
    assert (trial.task, trial.decided) == (0, False)
    (change,) = episodes(labels, 9.0, 3)
    assert (change.task, change.decided, change.strange) == (0, True, 1 + 3 * 4)
    assert 0.2 < change.trials[0] < 0.8
    assert labels.inference.current == 0
    assert not labels.trials.open
    assert not labels.keeps


def test_trials_of_other_tasks_than_are_known_are_refused(method):
    labels = InferredLabels(method, TRYING)
    method.begin_task()
    labels.begin()
    state = copy.deepcopy(labels.state())
    state["trials"]["usual"] *= 2
    with pytest.raises(ValueError, match="trials are not of 1 tasks"):
        InferredLabels(method, TRYING).load_state(state)


def test_evaluated_episodes_are_of_any_settled_task(method):
    labels = InferredLabels(method, CONFIG)
    for _ in range(2):
        method.begin_task()
        labels.begin()
    assert isinstance(labels.belief(1, 3), Told)  # the second is not settled
    live(labels, 0.0, CONFIG.settle)
    assert isinstance(belief := labels.belief(1, 3), TaskPosterior)
    assert belief.hypotheses == 2
    labels.new_motion()
    assert isinstance(labels.belief(1, 3), Told)


def test_evaluated_episodes_are_weighed_by_each_model_s_own_usual_errors(method):
    """What is kept of them is in the checkpoint; one of before there was any has one width."""
    labels = InferredLabels(method, CONFIG)
    for jump in (0.0, 9.0):
        method.begin_task()
        labels.begin()
        episodes(labels, jump, 6)
    rest, action = torch.zeros(1, 2), torch.zeros(1, 1)

    def found(labels: InferredLabels) -> torch.Tensor:
        belief = labels.belief(0, 1)
        assert isinstance(belief, TaskPosterior)
        belief.observe(rest, action, rest + 9.0)
        return belief.evidence.clone()

    again, older = InferredLabels(method, CONFIG), InferredLabels(method, CONFIG)
    state = copy.deepcopy(labels.state())
    again.load_state(state)
    assert torch.equal(found(again), found(labels))
    del state["trials"]
    older.load_state(state)
    belief = older.belief(0, 1)
    assert isinstance(belief, TaskPosterior)
    belief.observe(rest, action, rest + 9.0)
    squares = belief.errors.square().mean(-1) / older.inference.expected_error
    odds = -0.5 * 0.25 * (squares - squares[:, :1])
    torch.testing.assert_close(belief.evidence - belief.evidence[:, :1], odds, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found(older), found(labels))
