"""An agent out of a run acts, observes and predicts as training, evaluation and play do."""

import contextlib
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tiny_runs import EPISODE, MEMORY, SETTINGS, of_two_tasks

import hypercrl
from hypercrl import UserError
from hypercrl.agent.known_tasks import EVIDENCE
from hypercrl.agent.task_inference import InferenceConfig, TaskInference
from hypercrl.api.agent import PlanReport
from hypercrl.base.random_streams import derive_seed
from hypercrl.cli import main
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.open_run import open_run
from hypercrl_envs.push import PushTask

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, short_episodes_throughout):
    """Folders of a model with a variance, one with a memory, and one whose tasks are inferred."""
    path = tmp_path_factory.mktemp("runs")
    variance = {**SETTINGS["dynamics"], "probabilistic": True}
    hypercrl.train(**{**SETTINGS, "dynamics": variance}, run_dir=path / "variance")
    hypercrl.train(**SETTINGS, **MEMORY, run_dir=path / "memory")
    # The variance's agent, but that nobody tells it which of its two tasks it is in.
    told = RunFolder(path / "variance")
    config = OmegaConf.load(told.path / "config.yaml")
    config.task_id = "inferred"
    (path / "inferred").mkdir()
    OmegaConf.save(config, path / "inferred" / "config.yaml")
    state = told.load_checkpoint(LATEST)
    state["labels"] = of_two_tasks(TaskInference(InferenceConfig())).state()
    RunFolder(path / "inferred").save_checkpoint(LATEST, state)
    return path


def transitions(steps, robots=None, seed=0):
    """Random, of the size of pushing: [T, O], [T, A], [T, O], or with robots [T, B, …]."""
    draw = np.random.default_rng(seed)
    shape = (steps,) if robots is None else (steps, robots)
    sizes = (10, 2, 10)
    return [draw.uniform(-0.3, 0.3, (*shape, n)).astype(np.float32) for n in sizes]


def memory_state(agent):
    return agent._agent.belief.state()


@pytest.mark.parametrize("run", ["variance", "memory", "inferred"])
def test_actions_are_those_of_play_bit_for_bit(runs, run, monkeypatch, capsys):
    executed, step = [], PushTask.step

    def seen(self, action):
        executed.append(np.array(action))
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(PushTask, "step", seen)
        main(["play", f"run={runs / run}", "task=2", "episodes=2", "seed=5"])
    agent = hypercrl.load(runs / run, task=2, seed=5)
    env = agent.make_env()
    acted = []
    for episode in range(2):
        obs, _ = env.reset(seed=derive_seed(5, "play", episode))
        agent.reset()
        over = False
        while not over:
            acted.append(agent.act(obs))
            next_obs, _, terminated, truncated, _ = env.step(acted[-1])
            agent.observe(obs, acted[-1], next_obs)
            obs, over = next_obs, terminated or truncated
    assert len(acted) == 2 * EPISODE
    np.testing.assert_array_equal(acted, executed)


@pytest.mark.parametrize("run", ["variance", "memory", "inferred"])
def test_a_batch_acts_as_an_evaluation_does_bit_for_bit(runs, run):
    experiment = open_run(runs / run, "cpu")
    believe = lambda robots: experiment.labels.belief(1, robots)  # noqa: E731
    (score,) = experiment.evaluator().evaluate({1: believe}, episodes=3, key=7)
    agent = hypercrl.load(runs / run, task=2, seed=derive_seed(0, "evaluation", 1, 7))
    envs = [agent.make_env() for _ in range(3)]
    seeds = [derive_seed(0, "evaluation start", 1, episode) for episode in range(3)]
    obs = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    returns = np.zeros(3)
    for _ in range(EPISODE):
        actions = agent.act(obs)
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        next_obs = np.stack([step[0] for step in steps])
        agent.observe(obs, actions, next_obs)
        obs, returns = next_obs, returns + [float(step[1]) for step in steps]
    assert returns.mean() == score.episode_return


def by_hand(experiment, task, obs, actions):
    """[H + 1, O] of the mean prediction, one step after another, in float64."""
    model = experiment.model.double()
    weights = experiment.method.weights(task).detach().double()
    states = [torch.from_numpy(obs).double()]
    for action in torch.from_numpy(actions).double():
        states.append(states[-1] + model.predict(weights, states[-1], action)[0].detach())
    return torch.stack(states).numpy()


def test_predictions_are_the_model_rolled_by_hand(runs):
    (obs, *_), (_, actions, _) = transitions(1), transitions(6)
    prediction = hypercrl.load(runs / "variance", task=1).predict(obs[0], actions)
    wanted = by_hand(open_run(runs / "variance", "cpu"), 0, obs[0], actions)
    np.testing.assert_allclose(prediction.states, wanted, rtol=1e-5, atol=1e-6)
    other = hypercrl.load(runs / "variance", task=2).predict(obs[0], actions)
    assert np.abs(other.states - wanted).max() > 1e-3


def test_the_spread_is_that_of_the_models_variance(runs):
    """After one step σ itself; after two what NumPy samples, each to 1 in 60 at 20,000 samples."""
    (obs, *_), (_, actions, _) = transitions(1), transitions(2)
    experiment = open_run(runs / "variance", "cpu")
    std = hypercrl.load(runs / "variance").predict(obs[0], actions, samples=20_000).std
    weights, model = experiment.method.weights(0).detach(), experiment.model
    states = torch.from_numpy(obs[0]).expand(20_000, -1)
    draw = np.random.default_rng(1)
    assert std is not None
    assert not std[0].any()
    for step, action in enumerate(torch.from_numpy(actions)):
        with torch.no_grad():
            change, logvar = model.predict(weights, states, action.expand(20_000, -1))
        sigma = (0.5 * logvar).exp().numpy()
        if step == 0:
            np.testing.assert_allclose(std[1], sigma[0], rtol=0.03)
        noise = draw.standard_normal(sigma.shape)
        states = torch.from_numpy((states + change).numpy() + sigma * noise).float()
    np.testing.assert_allclose(std[2], states.numpy().std(0), rtol=0.04)


def test_a_model_without_a_variance_says_nothing_about_its_error(runs):
    (obs, *_), (_, actions, _) = transitions(1), transitions(6)
    agent = hypercrl.load(runs / "memory")
    assert agent.predict(obs[0], actions).std is None
    assert hypercrl.load(runs / "variance").predict(obs[0], actions, samples=0).std is None


def test_inferred_tasks_are_weighed_by_what_was_observed(runs):
    """Bayes' rule, and the mixture's mean and standard deviation, by hand."""
    experiment = open_run(runs / "inferred", "cpu")
    scale = experiment.model.target_normaliser.scale.double().numpy()
    labels = experiment.labels
    usual = labels.trials.covariances([0, 1], labels.inference.expected_error).numpy()
    agent = hypercrl.load(runs / "inferred")
    evidence = np.zeros(2)
    for obs, action, next_obs in zip(*transitions(3, seed=2), strict=True):
        near = obs + (next_obs - obs) * 1e-2
        agent.observe(obs, action, near)
        for task in range(2):
            reached = by_hand(experiment, task, obs, action[None])[1]
            error = (reached - near) / scale
            distance = error @ np.linalg.solve(usual[task], error)
            evidence[task] -= 0.5 * EVIDENCE * (distance + np.linalg.slogdet(usual[task])[1])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    (obs, *_), (_, actions, _) = transitions(1, seed=1), transitions(5, seed=1)
    each = np.stack([by_hand(experiment, task, obs[0], actions) for task in range(2)])
    mean = (weights[:, None, None] * each).sum(0)
    std = np.sqrt((weights[:, None, None] * (each - mean) ** 2).sum(0))
    prediction = agent.predict(obs[0], actions)
    assert weights.min() > 0.02  # neither is out of the question
    np.testing.assert_allclose(prediction.states, mean, atol=1e-4)
    np.testing.assert_allclose(prediction.std, std, atol=1e-4)


@pytest.mark.parametrize("run", ["variance", "memory", "inferred"])
def test_each_robot_of_a_batch_is_one_of_its_own(runs, run, monkeypatch):
    """Also its plan, where its noise is the same."""
    agent = hypercrl.load(runs / run)
    planner = type(agent._agent.planner)

    def same_for_all(self, robots, generator):
        shape = (3, 1, 24, 4, 2)
        return torch.randn(shape, generator=generator).expand(-1, robots, -1, -1, -1).contiguous()

    monkeypatch.setattr(planner, "noise", same_for_all)
    seen = transitions(6, robots=3)
    for step in zip(*seen, strict=True):
        agent.observe(*step)
    starts, controls = seen[2][-1], transitions(3, seed=1, robots=4)[1].swapaxes(0, 1)[:3]
    together, planned = agent.predict(starts, controls), agent.act(starts)
    assert together.states.shape == (3, 4, 10)
    for robot in range(3):
        alone = hypercrl.load(runs / run)
        for step in zip(*seen, strict=True):
            alone.observe(*(part[robot] for part in step))
        one = alone.predict(starts[robot], controls[robot])
        np.testing.assert_allclose(one.states, together.states[robot], rtol=1e-5, atol=1e-6)
        if run == "inferred":
            np.testing.assert_allclose(one.std, together.std[robot], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.act(starts[robot]), planned[robot], atol=1e-5)


def test_what_is_observed_counts_in_a_memory(runs):
    (obs, *_), (_, actions, _) = transitions(1), transitions(4)
    agent = hypercrl.load(runs / "memory")
    before = agent.predict(obs[0], actions).states
    for step in zip(*transitions(5, seed=2), strict=True):
        agent.observe(*step)
    assert np.abs(agent.predict(obs[0], actions).states - before).max() > 1e-5
    agent.reset()
    np.testing.assert_array_equal(agent.predict(obs[0], actions).states, before)


def test_what_comes_back_is_of_the_kind_that_was_given(runs):
    (obs, *_), (_, actions, _) = transitions(1), transitions(4)
    acted, predicted = [], []
    for given in (obs[0], obs[0].astype(np.float64), obs[0].tolist(), torch.from_numpy(obs[0])):
        agent = hypercrl.load(runs / "variance")
        acted.append(agent.act(given))
        predicted.append(agent.predict(given, actions))
    assert [type(action) for action in acted] == [np.ndarray] * 3 + [torch.Tensor]
    assert isinstance(predicted[3].states, torch.Tensor)
    assert isinstance(predicted[3].std, torch.Tensor)
    assert all(action.shape == (2,) for action in acted)
    assert all(np.array_equal(action, acted[0]) for action in acted)
    assert all(np.array_equal(p.states, predicted[0].states) for p in predicted)
    agent = hypercrl.load(runs / "variance")
    assert np.array_equal(agent.act(obs), acted[0][None])


def test_what_was_given_may_be_written_over_while_a_call_waits(runs):
    """As a sensor does that fills one array again and again."""
    agent, plain = (hypercrl.load(runs / "memory") for _ in range(2))
    obs, action, next_obs = (part[0] for part in transitions(1))
    plain.observe(obs, action, next_obs)
    buffer = next_obs.copy()

    class Waiting(contextlib.nullcontext):
        def __enter__(self):
            buffer.fill(1.0)

    agent._lock = Waiting()
    agent.observe(obs, action, torch.from_numpy(buffer))
    for name, value in memory_state(plain).items():
        assert torch.equal(value, memory_state(agent)[name])


def test_predicting_and_warming_up_change_no_plan(runs):
    (obs, *_), (_, actions, _) = transitions(1), transitions(4)
    plain, looked = (hypercrl.load(runs / "variance") for _ in range(2))
    looked.warm_up(obs[0])
    wanted = [plain.act(obs[0]) for _ in range(2)]
    first = looked.act(obs[0])
    assert np.array_equal(
        looked.predict(obs, actions[None]).std, looked.predict(obs, actions[None]).std
    )
    np.testing.assert_array_equal([first, looked.act(obs[0])], wanted)


class Clock:
    """Time that passes only where the reward is asked for."""

    def __init__(self, durations):
        self.now = 100.0
        self.durations = list(durations)

    def __call__(self):
        return self.now

    def slow(self, reward):
        def evaluated(*transition):
            self.now += self.durations.pop(0)
            return reward(*transition)

        return evaluated


@pytest.mark.parametrize(
    ("durations", "deadline", "iterations", "late"),
    [
        ([0.02] * 3, 0.07, 3, False),  # all of them
        ([0.02] * 3, 0.05, 2, False),  # the third would end at 0.06
        ([0.02, 0.05, 0.01], 0.1, 2, False),  # the third might take 0.05 again
        ([0.05, 0.01, 0.01], 0.09, 1, False),  # would fit, but who knows
        ([0.2] * 3, 0.1, 1, True),  # not even one fits
        ([0.02, 0.3, 0.02], 0.1, 2, True),  # one takes longer than all before
    ],
)
def test_a_search_stops_before_an_iteration_that_would_be_late(
    runs, monkeypatch, durations, deadline, iterations, late
):
    obs = transitions(1)[0][0]
    agent = hypercrl.load(runs / "variance")
    clock = Clock(durations)
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", clock)
        agent._agent.reward = clock.slow(agent._agent.reward)
        action = agent.act(obs, deadline=deadline)
    seconds = sum(durations[:iterations])
    assert agent.last_plan == PlanReport(pytest.approx(seconds), iterations, late)
    # The plan is that of a search with so many iterations and the same noise.
    short = hypercrl.load(runs / "variance")
    planner = short._agent.planner
    drawn = type(planner).noise(planner, 1, torch.Generator().manual_seed(0))
    monkeypatch.setattr(planner, "noise", lambda *_: drawn[:iterations])
    assert np.array_equal(action, short.act(obs))


def test_the_next_plan_starts_from_a_stopped_one(runs, monkeypatch):
    obs = transitions(1)[0][0]
    stopped, short = (hypercrl.load(runs / "variance") for _ in range(2))
    planner = short._agent.planner
    drawn = type(planner).noise(planner, 1, torch.Generator().manual_seed(0))
    stopped.act(obs, deadline=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(planner, "noise", lambda *_: drawn[:1])
        short.act(obs)
    short._agent.generator.set_state(stopped._agent.generator.get_state())
    assert np.array_equal(stopped.act(obs), short.act(obs))


def test_with_enough_time_a_plan_is_the_one_without_a_deadline(runs):
    obs = transitions(1)[0][0]
    free, bounded = (hypercrl.load(runs / "variance") for _ in range(2))
    for _ in range(3):
        assert np.array_equal(free.act(obs), bounded.act(obs, deadline=600))
    assert bounded.last_plan.iterations == 3
    assert not bounded.last_plan.late


def test_a_deadline_is_met_by_the_real_clock(runs):
    """Iterations of 10 ms, 0.5 s: some, and not all, of a thousand."""
    agent = hypercrl.load(runs / "variance")
    agent._agent.planner.config.iterations = 1000
    reward = agent._agent.reward

    def slow(*transition):
        time.sleep(0.01)
        return reward(*transition)

    agent._agent.reward = slow
    started = time.perf_counter()
    agent.act(transitions(1)[0][0], deadline=0.5)
    assert time.perf_counter() - started < 0.6
    assert 1 < agent.last_plan.iterations < 60


def test_two_threads_are_served_one_after_the_other(runs):
    """Neither sees the other at work, and memory and noise are what one thread would leave."""
    agent, alone = (hypercrl.load(runs / "memory") for _ in range(2))
    steps = list(zip(*transitions(30), strict=True))
    obs = steps[0][0]
    inside, together, planner = [], [], agent._agent
    reward, take_in = planner.reward, planner.belief.observe

    def busy(function):
        def call(*parts):
            together.append(len(inside))
            inside.append(None)
            time.sleep(0.002)
            inside.pop()
            return function(*parts)

        return call

    planner.reward, planner.belief.observe = busy(reward), busy(take_in)
    threads = [
        threading.Thread(target=lambda: [agent.observe(*step) for step in steps]),
        threading.Thread(target=lambda: [agent.act(obs) for _ in range(10)]),
        threading.Thread(target=lambda: [agent.act(obs, deadline=600) for _ in range(10)]),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [0] * (30 + 20 * 3)
    for step in steps:
        alone.observe(*step)
    for _ in range(20):
        alone.act(obs)
    for name, value in memory_state(alone).items():
        assert torch.equal(value, memory_state(agent)[name])
    generators = (a._agent.generator.get_state() for a in (agent, alone))
    assert torch.equal(*generators)


def test_waiting_for_another_thread_counts_in_a_deadline(runs):
    agent = hypercrl.load(runs / "variance")
    obs = transitions(1)[0][0]
    agent.warm_up(obs)
    agent._lock.acquire()
    threading.Timer(0.3, agent._lock.release).start()
    agent.act(obs, deadline=0.1)
    assert agent.last_plan.late
    assert agent.last_plan.iterations == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.act(np.zeros(9)), r"obs must be \[10\] of one robot or \[B, 10\] of B, not"),
        (lambda a: a.act(np.zeros((0, 10))), r"obs must be .*, not \[0, 10\]"),
        (lambda a: a.act(np.full(10, np.nan)), "obs has numbers in it that are not finite"),
        (lambda a: a.act(["a"] * 10), "obs must be numbers"),
        (lambda a: a.act(np.zeros(10), deadline=0), "deadline is in seconds and more than 0"),
        (lambda a: a.act(np.zeros(10), deadline=float("nan")), "deadline is in seconds"),
        (lambda a: a.act(np.zeros((2, 10))), r"of 1 robots, not 2; reset\(\) begins another"),
        (lambda a: a.observe(np.zeros(10), np.zeros(3), np.zeros(10)), r"action must be \[2\]"),
        (lambda a: a.observe(np.zeros(10), np.zeros((2, 2)), np.zeros(10)), "one number of robots"),
        (
            lambda a: a.observe(np.zeros(10), [0, -3], np.zeros(10)),
            r"action must be from -1 to 1.*3",
        ),
        (lambda a: a.predict(np.zeros(10), [[0, 1.5]]), r"actions must be from -1 to 1.*1.5"),
        (lambda a: a.predict(np.zeros(10), np.zeros(2)), r"actions must be \[any, 2\]"),
        (lambda a: a.predict(np.zeros((2, 10)), np.zeros((2, 4, 2))), "of 1 robots, not 2"),
        (lambda a: a.predict(np.zeros(10), np.zeros((4, 2)), samples=1), "samples is 2 or more.*1"),
        (lambda a: a.predict(np.zeros(10), np.zeros((4, 2)), samples=-3), "samples is 2 or more"),
        (lambda a: a.predict(np.zeros(10), np.zeros((4, 2)), samples=9.5), "samples is 2 or more"),
    ],
)
def test_arrays_of_another_size_are_refused_and_change_nothing(runs, call, message):
    agent, untouched = (hypercrl.load(runs / "memory") for _ in range(2))
    obs = transitions(1)[0][0]
    agent.act(obs)
    untouched.act(obs)
    with pytest.raises(ValueError, match=message):
        call(agent)
    assert np.array_equal(agent.act(obs), untouched.act(obs))


def test_actions_may_be_rounded_where_they_were_scaled(runs):
    agent = hypercrl.load(runs / "memory")
    over = np.full((1, 2), np.nextafter(np.float32(1), np.float32(2)))
    assert np.isfinite(agent.predict(np.zeros(10), over).states).all()


def test_what_cannot_be_loaded_is_named(runs, tmp_path):
    with pytest.raises(UserError, match="There is no run at"):
        hypercrl.load(tmp_path / "none")
    with pytest.raises(UserError, match="task=3: this run has the tasks 1 to 2"):
        hypercrl.load(runs / "variance", task=3)
    for task in (0, 1.0, "1"):
        with pytest.raises(UserError, match=f"task={task!r}: this run has"):
            hypercrl.load(runs / "variance", task=task)  # type: ignore[reportArgumentType]
    with pytest.raises(UserError, match="after_task_1, after_task_2, latest"):
        hypercrl.load(runs / "variance", checkpoint="after_task_9")
    with pytest.raises(UserError, match="device=tpu"):
        hypercrl.load(runs / "variance", device="tpu")
    with pytest.raises(UserError, match="device=None is not a device"):
        hypercrl.load(runs / "variance", device=None)  # type: ignore[reportArgumentType]
    for seed in (None, -1, 2**63, 1.5, "1"):
        with pytest.raises(UserError, match=f"seed={seed!r}: give a whole number from 0 to 92"):
            hypercrl.load(runs / "variance", seed=seed)  # type: ignore[reportArgumentType]


def test_an_untrained_task_is_met_with_the_latest_ones_model(runs):
    obs = transitions(1)[0][0]
    with pytest.warns(UserWarning, match="task 2 was not trained in checkpoint 'after_task_1'"):
        early = hypercrl.load(runs / "variance", task=2, checkpoint="after_task_1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = hypercrl.load(runs / "variance", task=1, checkpoint="after_task_1")
    actions = transitions(4)[1]
    assert np.array_equal(early.predict(obs, actions).states, known.predict(obs, actions).states)


def test_a_run_that_plans_with_the_simulator_has_no_agent(runs, tmp_path):
    config = OmegaConf.load(runs / "variance" / "config.yaml")
    config.planner.dynamics = "simulator"
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(UserError, match="has learned no model"):
        hypercrl.load(Path(tmp_path))
