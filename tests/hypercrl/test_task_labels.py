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
from hypercrl.base.errors import UserError
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
        labels.trials.waiting = [0]
        add(4)
        learner.part(0)  # the trial is over: it is this task
        labels.trials.end()
        labels.inference.alarmed = 0
        learner.observe()
        assert seen == 16
        labels.inference.levels.append(0.0)  # what acts now is an older one
        assert not labels.keeps
        add(2)
        labels.inference.levels.pop()
        learner.observe()
        assert seen == 16
        return
    labels.inference.alarmed = 0
    add(1)
    learner.observe()
    assert seen == 16


@pytest.mark.parametrize("method", ["coreset", "hnet_fisher", "packnet"])
def test_something_of_a_task_is_left_after_a_doubt_longer_than_the_replay(method):
    """There is to be what its end is consolidated on, and a batch if it comes again."""
    sizes = ["protocol.replay_capacity=8", "inference.patience=5", f"method={method}"]
    words = ["preset=smoke", "device=cpu", "task_id=inferred", *sizes]
    config = OmegaConf.to_object(composed("train", words))
    learner = Learner(experiment := build(cast(TrainConfig, config)))
    learner.begin_task()
    action = torch.zeros(1, experiment.model.action_size)
    for step in range(20):
        obs = torch.full((1, experiment.model.obs_size), float(step))
        learner.add(obs, action, obs + 1)
    learner.part(9)
    assert learner.replay.contents().obs[:, 0].tolist() == [12]
    learner.end_task()
    learner.begin_task()
    assert learner.method.tasks == 2


def test_settings_that_would_leave_nothing_to_learn_from_are_refused():
    words = ["preset=smoke", "device=cpu", "task_id=inferred"]
    cases = (
        (
            ["protocol.replay_capacity=21", "inference.patience=20"],
            r"doubt is of 21 steps at least.* Give protocol.replay_capacity=22 or more",
        ),
        (
            ["memory=gru", "context={burn_in: 20, horizon: 11}", "protocol.random_steps=60"],
            r"in the midst of an episode; give protocol.random_steps=61 at least",
        ),
    )
    for own, says in cases:
        config = OmegaConf.to_object(composed("train", [*words, *own]))
        with pytest.raises(UserError, match=says):
            build(cast(TrainConfig, config))


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


def two_known(method, *jumps: float) -> InferredLabels:
    labels = InferredLabels(method, TRYING)
    for jump in jumps:
        method.begin_task()
        labels.begin()
        assert episodes(labels, jump, 6) == []
    return labels


def test_before_a_new_task_begins_the_model_of_each_known_one_acts(method):
    """What they show is kept, not learned, and is what the new task begins with."""
    labels = two_known(method, 0.0, 9.0)
    (trial,) = episodes(labels, 90.0, 1)
    assert (trial.task, trial.decided) == (1, False)  # the present one: it may be right
    assert trial.strange == CONFIG.patience + 1
    assert (labels.keeps, labels.learns) == (True, False)
    (trial,) = episodes(labels, 90.0, 2, paid=-1.0)
    assert (trial.task, trial.decided, trial.strange) == (0, False, 0)
    known = mean_layers(method.planner_layers(0)(None))
    assert same(labels.training_belief(1, 1).layers(), known)
    again = InferredLabels(method, TRYING)
    again.load_state(copy.deepcopy(labels.state()))
    for goes_on in (labels, again):
        second, change = episodes(goes_on, 90.0, 4, paid=-1.0)
        assert (second.decided, second.strange) == (False, 0)  # the least bad one once more
        assert (change.task, change.decided) == (2, True)
        assert change.first == change.strange == 1 + 6 * 4
        assert min(change.trials.values()) > 3


def test_a_task_whose_trial_is_as_usual_is_gone_back_to(method):
    labels = two_known(method, 9.0, 0.0)
    trial, other = episodes(labels, 9.5, 3, paid=-1.0)  # misled where a wrong one acts
    assert (trial.task, other.task, other.decided) == (1, 0, False)
    (change,) = episodes(labels, 9.0, 3)
    assert (change.task, change.decided) == (0, True)
    assert 1 + 4 * 4 <= change.strange <= 1 + 5 * 4
    assert change.trials[0] < 0 < change.trials[1]
    assert labels.inference.current == 0
    assert not labels.trials.open
    assert not labels.keeps


@pytest.mark.parametrize("gone_back", [False, True])
def test_a_false_alarm_begins_no_task_and_leaves_the_level(method, gone_back):
    """Bursts of errors in the present task, be it the newest one or not; then it is as usual."""
    labels = two_known(method, 0.0, 9.0)
    if gone_back:
        labels.inference.go_back(0)
    present, usual = labels.inference.current, 9.0 * (not gone_back)
    levels = list(labels.inference.levels)
    (trial,) = episodes(labels, usual + 90.0, 1)
    assert (trial.task, trial.decided) == (present, False)
    (change,) = episodes(labels, usual, 3)
    assert (change.task, change.decided) == (present, False)
    # What a task gone back to shows is not of the newest one, which is in training.
    assert (change.strange > 0) == gone_back
    assert labels.inference.levels == levels
    assert not labels.trials.open
    assert labels.learns == (not gone_back)


def test_a_task_whose_errors_have_long_been_above_usual_is_tried_last(method):
    """It may have learned from another task's steps, of which it errs as is usual of it."""
    labels = two_known(method, 0.0, 9.0)
    labels.inference.config = replace(TRYING, alarm=1e9, steady=8.0)
    first, second = episodes(labels, 90.0, 5, paid=-1.0)
    assert [trial.task for trial in (first, second)] == [0, 1]
    (change,) = episodes(labels, 9.0, 3)
    assert (change.task, change.decided) == (1, False)
    assert labels.inference.known == 2


def test_what_is_familiar_is_tried_as_well(method):
    """The model that errs least in a doubt may be a wrong one all the same."""
    labels = two_known(method, 9.0, 0.0)
    labels.inference.config = replace(TRYING, familiar=1.0)
    (trial,) = episodes(labels, 9.0, 1)
    assert (trial.task, trial.decided) == (1, False)


def test_where_no_more_tasks_may_be_made_the_least_bad_one_is_taken(method):
    labels = two_known(method, 9.0, 0.0)
    labels.inference.config = replace(TRYING, max_tasks=2, margin=1.0)
    *_, change = episodes(labels, 20.0, 7, paid=-1.0)
    assert min(change.trials.values()) > 0
    assert change.task == min(change.trials, key=change.trials.__getitem__)
    assert change.task == labels.inference.current
    assert not labels.trials.open


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
