"""The contract of `Task`: Gymnasium's, one reward, seeding, exact save and restore."""

from __future__ import annotations

import json
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from hypercrl_envs import Task, make_task


def random_actions(seed: int, steps: int) -> np.ndarray:
    """Actions [steps, 2] with a drift forward, some of them outside of the limits."""
    low, high = (-0.5, -1.0), (1.5, 1.0)
    return np.random.default_rng(seed).uniform(low, high, size=(steps, 2)).astype(np.float32)


def play(task: Task, actions: np.ndarray) -> list[tuple[np.ndarray, float]]:
    return [(result[0], float(result[1])) for result in map(task.step, actions)]


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for (obs_a, reward_a), (obs_b, reward_b) in zip(first, second, strict=True):
        np.testing.assert_array_equal(obs_a, obs_b)
        assert reward_a == reward_b


def test_passes_gymnasiums_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Not made with gymnasium.make, so there is no spec to make it again from.
        warnings.filterwarnings("ignore", message=".*spec.*")
        task = make_task("push", render_mode="rgb_array", width=64, height=64)
        check_env(task)
        task.close()


def test_step_pays_the_batched_reward(push: Task):
    rows = []
    for seed in range(3):
        obs, _ = push.reset(seed=seed)
        for action in random_actions(seed, 20).clip(-1.0, 1.0):
            next_obs, reward, *_, info = push.step(action)
            assert type(reward) is float
            rows.append((obs, action, next_obs, reward, info))
            obs = next_obs
    obs, action, next_obs = (torch.from_numpy(np.stack([r[i] for r in rows])) for i in range(3))
    paid = torch.tensor([row[3] for row in rows])
    torch.testing.assert_close(push.reward(obs, action, next_obs), paid, rtol=1e-6, atol=1e-6)
    successes = torch.tensor([row[4]["success"] for row in rows])
    assert torch.equal(push.success(next_obs), successes)
    distances = torch.tensor([row[4]["goal_distance"] for row in rows])
    torch.testing.assert_close(push.goal_distance(next_obs), distances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leading", [(), (3,), (2, 5, 4)])
def test_reward_takes_any_leading_dimensions(push: Task, leading, dtype):
    obs, next_obs = torch.randn(2, *leading, 10, dtype=dtype)
    action = torch.rand(*leading, 2, dtype=dtype)
    reward = push.reward(obs, action, next_obs)
    assert reward.shape == leading
    assert reward.dtype == dtype
    assert push.goal_distance(obs).shape == leading
    assert push.success(obs).shape == leading
    assert push.success(obs).dtype == torch.bool


def test_reward_is_differentiable_after_inference_mode(push: Task):
    obs = torch.randn(4, 10, dtype=torch.float64)
    action = torch.rand(4, 2, dtype=torch.float64)
    with torch.inference_mode():
        push.reward(obs, action, obs)
    action.requires_grad_()
    state = obs.clone().requires_grad_()
    push.reward(obs, action, state).sum().backward()
    assert state.grad is not None
    assert torch.isfinite(state.grad).all()


def test_same_seed_same_episode(push: Task):
    other = make_task("push", densities=(100, 500))
    episodes = []
    for task, seed in [(push, 7), (push, 7), (other, 7), (push, 8)]:
        obs, info = task.reset(seed=seed)
        episodes.append([(obs, info["goal_distance"]), *play(task, random_actions(0, 25))])
    assert_same(episodes[0], episodes[1])
    assert_same(episodes[0], episodes[2])
    assert not np.array_equal(episodes[0][0][0], episodes[3][0][0])


def test_episodes_differ_without_a_seed(push: Task):
    first, _ = push.reset(seed=1)
    second, _ = push.reset()
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("as_json", [False, True])
def test_restored_state_continues_bit_for_bit_in_contact(push: Task, as_json):
    push.reset(seed=2)
    play(push, np.tile(np.array([1.0, 0.1], np.float32), (8, 1)))
    box = push.model.body("box").id  # type: ignore[attr-defined]
    geom_body = push.model.geom_bodyid  # type: ignore[attr-defined]
    pairs = [{geom_body[c.geom1], geom_body[c.geom2]} for c in push.data.contact]  # type: ignore[attr-defined]
    assert any(box in pair and 0 not in pair for pair in pairs), "the finger touches the box"
    state = push.get_state()
    if as_json:
        state = json.loads(json.dumps(state, default=np.ndarray.tolist))
    actions = random_actions(5, 30)

    def future(task: Task) -> list[Any]:
        steps = play(task, actions)
        # Observations are rounded to float32; the simulator's own numbers must agree too.
        steps.append((task.get_state()["physics"], 0.0))
        first, info = task.reset()
        return [*steps, (first, info["goal_distance"]), *play(task, actions[:5])]

    expected = future(push)
    fresh = make_task("push", densities=(100, 500))
    for task in (push, fresh):
        task.set_state(state)
        assert_same(future(task), expected)


def test_restored_step_count_truncates_in_time(push: Task):
    play(push, random_actions(0, 58))
    fresh = make_task("push", densities=(100, 500))
    fresh.set_state(push.get_state())
    assert [fresh.step(np.zeros(2, np.float32))[3] for _ in range(2)] == [False, True]


def test_state_is_a_snapshot(push: Task):
    state = push.get_state()
    kept = state["physics"].copy()
    play(push, random_actions(0, 3))
    np.testing.assert_array_equal(state["physics"], kept)


def test_foreign_state_is_refused(push: Task):
    state = push.get_state()
    state["physics"] = state["physics"][:-3]
    with pytest.raises(ValueError, match="physics state"):
        push.set_state(state)


def test_actions_are_clipped_to_the_limits(push: Task):
    state = push.get_state()
    expected = play(push, np.array([[1.0, -1.0]], np.float32))
    push.set_state(state)
    assert_same(play(push, np.array([[30.0, -np.inf]], np.float32)), expected)


@pytest.mark.parametrize("action", [[0.0, np.nan], [0.0], [0.0, 0.0, 0.0], 0.0, [[0.0, 0.0]]])
def test_bad_actions_are_refused_and_change_nothing(push: Task, action):
    before = push.get_state()
    with pytest.raises(ValueError, match=r"NaN|shape"):
        push.step(np.array(action, np.float32))
    np.testing.assert_array_equal(push.get_state()["physics"], before["physics"])
    assert push.get_state()["elapsed_steps"] == before["elapsed_steps"]


def test_step_before_reset_is_refused():
    with pytest.raises(RuntimeError, match="reset"):
        make_task("push").step(np.zeros(2, np.float32))


def test_returned_observations_belong_to_the_caller(push: Task):
    obs, *_ = push.step(np.zeros(2, np.float32))
    state = push.get_state()
    expected = play(push, random_actions(0, 2))
    push.set_state(state)
    obs += 1.0
    assert_same(play(push, random_actions(0, 2)), expected)
    first, _ = push.reset(seed=0)
    kept = first.copy()
    first += 1.0
    np.testing.assert_array_equal(push._observation, kept)  # type: ignore[arg-type]


def test_spaces_and_types(push: Task):
    assert isinstance(push, gymnasium.Env)
    assert push.observation_space.dtype == push.action_space.dtype == np.float32
    assert push.observation_space.shape == (10,)
    assert push.action_space.shape == (2,)
    obs, _ = push.reset(seed=0)
    action = push.scripted_action(obs)
    assert obs.dtype == action.dtype == np.float32
    assert push.action_space.contains(action)
