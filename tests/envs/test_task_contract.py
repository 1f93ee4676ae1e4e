"""The contract of `Task`, held by every kind of task: Gymnasium's, one reward, exact restore."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from hypercrl_envs import Task, make_task
from hypercrl_kernels.planning.reward_tracer import trace

Spec = dict[str, Any]


def random_actions(task: Task, seed: int, steps: int) -> np.ndarray:
    """Actions [steps, A] with the task's drift, some of them outside of the limits."""
    generator = np.random.default_rng(seed)
    drift = generator.uniform(task.exploration.bias_low, task.exploration.bias_high)
    noise = generator.uniform(-1.0, 1.0, size=(steps, len(drift)))
    return (drift + noise).astype(np.float32)


def play(task: Task, actions: np.ndarray) -> list[tuple[np.ndarray, float]]:
    return [(result[0], float(result[1])) for result in map(task.step, actions)]


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for (obs_a, reward_a), (obs_b, reward_b) in zip(first, second, strict=True):
        np.testing.assert_array_equal(obs_a, obs_b)
        assert reward_a == reward_b


def nothing(task: Task) -> np.ndarray:
    return np.zeros(task.action_space.shape, np.float32)


def test_passes_gymnasiums_checker(spec: Spec):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Not made with gymnasium.make, so there is no spec to make it again from.
        warnings.filterwarnings("ignore", message=".*spec.*")
        task = make_task(**spec, render_mode="rgb_array", width=64, height=64)
        check_env(task)
        task.close()


def test_plans_sum_the_reward_in_one_kernel(simulated: Spec):
    """It is such as a GPU's kernel can compute; Gymnasium's limits are applied in float64."""
    task = make_task(**simulated)
    observed = task.observation_space.shape
    assert observed is not None
    sizes = observed[0], len(nothing(task))
    task.close()
    generator = torch.Generator().manual_seed(1)
    step = [torch.randn(5, size, generator=generator) for size in (*sizes, sizes[0])]
    program = trace(task.reward, *sizes, torch.device("cpu"))
    assert program is not None
    torch.testing.assert_close(program(*step), task.reward(*step), rtol=1e-5, atol=1e-5)


def test_step_pays_the_batched_reward(task: Task):
    rows = []
    for seed in range(3):
        obs, _ = task.reset(seed=seed)
        for action in random_actions(task, seed, 20).clip(-1.0, 1.0):
            next_obs, reward, *_, info = task.step(action)
            assert type(reward) is float
            rows.append((obs, action, next_obs, reward, info))
            obs = next_obs
    obs, action, next_obs = (torch.from_numpy(np.stack([r[i] for r in rows])) for i in range(3))
    paid = torch.tensor([row[3] for row in rows])
    torch.testing.assert_close(task.reward(obs, action, next_obs), paid, rtol=1e-6, atol=2e-6)
    successes = torch.tensor([row[4]["success"] for row in rows])
    assert torch.equal(task.success(next_obs), successes)
    distances = torch.tensor([row[4]["goal_distance"] for row in rows])
    torch.testing.assert_close(task.goal_distance(next_obs), distances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leading", [(), (3,), (2, 5, 4)])
def test_reward_takes_any_leading_dimensions(task: Task, leading, dtype):
    size, actions = task.observation_space.shape[0], task.action_space.shape[0]
    obs, next_obs = torch.randn(2, *leading, size, dtype=dtype)
    action = torch.rand(*leading, actions, dtype=dtype)
    reward = task.reward(obs, action, next_obs)
    assert reward.shape == leading
    assert reward.dtype == dtype
    assert task.goal_distance(obs).shape == leading
    assert task.success(obs).shape == leading
    assert task.success(obs).dtype == torch.bool


def test_reward_is_differentiable_after_inference_mode(task: Task):
    size, actions = task.observation_space.shape[0], task.action_space.shape[0]
    obs = torch.randn(4, size, dtype=torch.float64)
    action = torch.rand(4, actions, dtype=torch.float64)
    with torch.inference_mode():
        task.reward(obs, action, obs)
    action.requires_grad_()
    state = obs.clone().requires_grad_()
    task.reward(obs, action, state).sum().backward()
    assert state.grad is not None
    assert torch.isfinite(state.grad).all()


def test_same_seed_same_episode(task: Task, spec: Spec):
    other = make_task(**spec)
    episodes = []
    for played, seed in [(task, 7), (task, 7), (other, 7), (task, 8)]:
        obs, info = played.reset(seed=seed)
        start = (obs, info["goal_distance"])
        episodes.append([start, *play(played, random_actions(task, 0, 25))])
    assert_same(episodes[0], episodes[1])
    assert_same(episodes[0], episodes[2])
    assert not np.array_equal(episodes[0][0][0], episodes[3][0][0])


def test_episodes_differ_without_a_seed(task: Task):
    first, _ = task.reset(seed=1)
    second, _ = task.reset()
    assert not np.array_equal(first, second)


def episode(spec: Spec) -> str:
    """A digest of what is seen in thirty steps."""
    task = make_task(**spec)
    steps = [task.reset(seed=5)[0]]
    actions = np.random.default_rng(0).uniform(-1, 1, (30, *task.action_space.shape))
    steps += [task.step(action)[0] for action in actions.astype(np.float32)]
    task.close()
    return hashlib.sha256(np.stack(steps).tobytes()).hexdigest()


def test_other_processes_play_the_same_episodes(every_kind: list[Spec]):
    """One plays all of an engine's: to start and import takes longer than every episode."""
    program = (
        "import json, sys, test_task_contract as here\n"
        "print(*map(here.episode, json.loads(sys.argv[1])))"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", program, json.dumps(every_kind)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].split() == [episode(spec) for spec in every_kind]


@pytest.mark.parametrize("as_json", [False, True])
def test_restored_state_continues_bit_for_bit(task: Task, spec: Spec, as_json):
    obs, _ = task.reset(seed=2)
    for _ in range(8):
        obs, *_ = task.step(task.scripted_action(obs))
    state = task.get_state()
    if as_json:
        state = json.loads(json.dumps(state, default=np.ndarray.tolist))
    actions = random_actions(task, 5, 30)

    def future(played: Task) -> list[Any]:
        steps = play(played, actions)
        # Observations are rounded to float32; the simulator's own numbers must agree too.
        steps.append((played.get_state()["physics"], 0.0))
        first, info = played.reset()
        return [*steps, (first, info["goal_distance"]), *play(played, actions[:5])]

    expected = future(task)
    fresh = make_task(**spec)
    for restored in (task, fresh):
        restored.set_state(state)
        assert_same(future(restored), expected)


def test_restored_step_count_truncates_in_time(task: Task, spec: Spec):
    play(task, random_actions(task, 0, task.max_episode_steps - 2))
    fresh = make_task(**spec)
    fresh.set_state(task.get_state())
    assert [fresh.step(nothing(task))[3] for _ in range(2)] == [False, True]


def test_state_is_a_snapshot(task: Task):
    state = task.get_state()
    kept = state["physics"].copy()
    play(task, random_actions(task, 0, 3))
    np.testing.assert_array_equal(state["physics"], kept)


def test_foreign_state_is_refused(task: Task):
    state = task.get_state()
    state["physics"] = state["physics"][:-3]
    with pytest.raises(ValueError, match="state of this"):
        task.set_state(state)


def test_actions_are_clipped_to_the_limits(task: Task):
    state = task.get_state()
    ones = np.ones((1, *task.action_space.shape), np.float32)
    ones[0, -1] = -1.0
    expected = play(task, ones)
    task.set_state(state)
    beyond = 30.0 * ones
    beyond[0, -1] = -np.inf
    assert_same(play(task, beyond), expected)


@pytest.mark.parametrize("kind", ["nan", "short", "long", "scalar", "batched"])
def test_bad_actions_are_refused_and_change_nothing(task: Task, kind):
    (size,) = task.action_space.shape
    action = {
        "nan": np.full(size, np.nan),
        "short": np.zeros(size - 1),
        "long": np.zeros(size + 1),
        "scalar": np.zeros(()),
        "batched": np.zeros((1, size)),
    }[kind]
    before = task.get_state()
    with pytest.raises(ValueError, match=r"NaN|shape"):
        task.step(action)
    np.testing.assert_array_equal(task.get_state()["physics"], before["physics"])
    assert task.get_state()["elapsed_steps"] == before["elapsed_steps"]


@pytest.mark.filterwarnings("ignore:an episode of")
def test_a_state_taken_after_steps_beyond_the_end_can_be_restored():
    task, copy = make_task("double_integrator"), make_task("double_integrator")
    task.reset(seed=0)
    for _ in range(task.max_episode_steps + 3):
        task.step(nothing(task))
    copy.set_state(task.get_state())
    assert copy.get_state()["elapsed_steps"] == task.max_episode_steps + 3
    assert_same(play(copy, random_actions(copy, 0, 2)), play(task, random_actions(task, 0, 2)))
    first, second = (each.reset()[0] for each in (task, copy))
    np.testing.assert_array_equal(first, second)


def test_step_before_reset_is_refused(spec: Spec):
    task = make_task(**spec)
    with pytest.raises(RuntimeError, match="reset"):
        task.step(nothing(task))


def test_returned_observations_belong_to_the_caller(task: Task):
    obs, *_ = task.step(nothing(task))
    state = task.get_state()
    expected = play(task, random_actions(task, 0, 2))
    task.set_state(state)
    obs += 1.0
    assert_same(play(task, random_actions(task, 0, 2)), expected)
    first, _ = task.reset(seed=0)
    kept = first.copy()
    first += 1.0
    np.testing.assert_array_equal(task._observation, kept)  # type: ignore[arg-type]


def test_spaces_and_types(task: Task):
    assert isinstance(task, gymnasium.Env)
    assert task.observation_space.dtype == task.action_space.dtype == np.float32
    obs, _ = task.reset(seed=0)
    action = task.scripted_action(obs)
    assert obs.dtype == action.dtype == np.float32
    assert task.observation_space.contains(obs)
    assert task.action_space.contains(action)
    assert len(task.exploration.bias_low) == task.action_space.shape[0]


@pytest.mark.slow
def test_random_actions_soak(spec: Spec):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = make_task(**spec)
        generator = np.random.default_rng(0)
        task.reset(seed=0)
        for _ in range(20_000):
            action = generator.uniform(-1, 1, task.action_space.shape).astype(np.float32)
            obs, reward, _, truncated, _ = task.step(action)
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)
            assert task.observation_space.contains(obs)
            if truncated:
                task.reset()
