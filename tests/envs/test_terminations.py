"""Shipped termination and reward functions say what Gymnasium's own environments say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from hypercrl_envs import gym_rewards, terminations

STEPS = 2000
SHOWN = {"exclude_current_positions_from_observation": False}

# What ends an episode, as an index into qpos, and the value at which it does.
EDGES = {
    "Hopper-v5": (terminations.hopper, [(1, 0.7), (2, 0.2), (2, -0.2)]),
    "Walker2d-v5": (terminations.walker2d, [(1, 0.8), (1, 2.0), (2, 1.0), (2, -1.0)]),
    "Ant-v5": (terminations.ant, [(2, 0.2), (2, 1.0)]),
    "Humanoid-v5": (terminations.humanoid, [(2, 1.0), (2, 2.0)]),
    "InvertedPendulum-v5": (terminations.inverted_pendulum, [(1, 0.2), (1, -0.2)]),
    # Upright but for the second pole, whose tip is 1 m high at acos(2 / 3) = 0.84, and falls.
    "InvertedDoublePendulum-v5": (terminations.inverted_double_pendulum, [(2, 0.82)]),
}


def transitions(env: Any, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
    """Random steps of whole episodes: observation, action, reward and end of each."""
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        action = rng.uniform(env.action_space.low, env.action_space.high)
        next_obs, reward, ended, _, _ = env.step(action)
        yield obs, action, (next_obs, reward), ended
        obs = env.reset()[0] if ended else next_obs


def asked(function: Callable, rows: list[tuple[np.ndarray, ...]]) -> torch.Tensor:
    """One call in float32, as a planner makes it, with two leading dimensions."""
    columns = (np.stack(column).astype(np.float32) for column in zip(*rows, strict=True))
    return function(*(torch.from_numpy(column)[None] for column in columns))[0]


@pytest.mark.parametrize(
    ("id", "options"),
    [*((id, {}) for id in EDGES), ("Hopper-v5", SHOWN), ("Walker2d-v5", SHOWN)],
)
def test_ends_when_gymnasium_does(id, options):
    function, edges = EDGES[id]
    env = gymnasium.make(id, **options).unwrapped
    rows, truth = [], []
    for obs, action, (next_obs, _), ended in transitions(env, STEPS):
        rows.append((obs, action, next_obs))
        truth.append(ended)
    rng = np.random.default_rng(1)
    for index, value in edges * (300 // len(edges)):
        qpos, qvel = env.init_qpos.copy(), env.init_qvel.copy()
        qpos[index] = value + 0.02 * rng.normal()
        qvel[:] = 0.1 * rng.normal(size=len(qvel))
        env.set_state(qpos, qvel)
        obs = env._get_obs()
        action = rng.uniform(env.action_space.low, env.action_space.high)
        next_obs, _, ended, _, _ = env.step(action)
        rows.append((obs, action, next_obs))
        truth.append(ended)
    got = asked(function, rows)
    assert got.dtype == torch.bool
    assert got.tolist() == truth
    assert 5 < sum(truth) < len(truth) - 100
    assert 30 < sum(truth[STEPS:]) < len(truth) - STEPS - 30, "both sides of the edges"


def test_a_car_is_there_when_gymnasium_says_so():
    env = gymnasium.make("MountainCarContinuous-v0").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    rows, truth, paid = [], [], []
    for _ in range(2000):
        obs = np.array([0.45 + 0.02 * rng.normal(), 0.02 * rng.normal()], np.float32)
        env.state = obs
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        next_obs, reward, ended, *_ = env.step(action)
        rows.append((obs, action, next_obs))
        truth.append(ended)
        paid.append(reward)
    assert asked(terminations.mountain_car, rows).tolist() == truth
    assert 300 < sum(truth) < 1700
    np.testing.assert_allclose(asked(gym_rewards.mountain_car, rows), paid, atol=1e-5)
    at_the_flag = gym_rewards.mountain_car_distance(torch.tensor([[0.45, 0.0], [0.25, 0.0]]))
    torch.testing.assert_close(at_the_flag, torch.tensor([0.0, 0.2]))


@pytest.mark.parametrize(
    ("id", "name", "options"),
    [
        ("Hopper-v5", "hopper", SHOWN),
        ("Walker2d-v5", "walker2d", SHOWN),
        ("InvertedPendulum-v5", "inverted_pendulum", {}),
        ("InvertedDoublePendulum-v5", "inverted_double_pendulum", {}),
    ],
)
def test_pays_what_gymnasium_pays(id, name, options):
    rows, paid = [], []
    for obs, action, (next_obs, reward), _ in transitions(
        gymnasium.make(id, **options).unwrapped, 500
    ):
        rows.append((obs, action, next_obs))
        paid.append(reward)
    np.testing.assert_allclose(asked(getattr(gym_rewards, name), rows), paid, atol=1e-3)


@pytest.mark.parametrize(("function", "size"), [(terminations.hopper, 11), (terminations.ant, 105)])
def test_what_is_not_a_number_ends_an_episode(function, size):
    obs = torch.full((3, size), torch.nan)
    assert function(obs, torch.zeros(3, 1), obs).all()
    assert not terminations.never(obs, torch.zeros(3, 1), obs).any()
