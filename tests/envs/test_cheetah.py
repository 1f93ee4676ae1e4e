"""The half-cheetahs: gymnasium's own where the body is the base one, others where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from hypercrl_envs import Task, TaskSequence
from hypercrl_envs.cheetah import BODIES, JOINTS, CheetahTask

SEQUENCE = yaml.safe_load(
    (Path(__file__).parents[2] / "configs/env/cheetah_joints.yaml").read_text()
)
JOINT_TASKS = range(len(SEQUENCE["tasks"]))


def runs(task: Task, seed: int, gait: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether this gait solves the task."""
    obs, info = task.reset(seed=seed)
    assert not info["success"]
    for _ in range(task.max_episode_steps):
        obs, _, _, _, info = task.step(gait(obs))
    return info["success"]


def test_base_equals_gymnasiums_half_cheetah_bit_for_bit():
    original = gymnasium.make("HalfCheetah-v5").unwrapped
    task = CheetahTask()
    data = task.simulator.data
    generator = np.random.default_rng(0)
    for seed in range(3):
        start, _ = original.reset(seed=seed)
        task.reset(seed=seed)
        np.testing.assert_array_equal(np.concatenate((data.qpos[1:], data.qvel)), start)
        for _ in range(60):
            action = generator.uniform(-1, 1, 6).astype(np.float32)
            expected, reward, *_ = original.step(action)
            obs, paid, *_ = task.step(action)
            np.testing.assert_array_equal(np.concatenate((data.qpos[1:], data.qvel)), expected)
            assert paid == pytest.approx(reward, abs=1e-5)
            np.testing.assert_array_equal(obs[3:9], expected[2:8].astype(np.float32))


@pytest.mark.parametrize("body", BODIES)
def test_one_part_is_a_quarter_larger(body):
    base, task = CheetahTask().simulator.model, CheetahTask(body=body).simulator.model
    for index in range(base.ngeom):
        name = base.geom(index).name
        ratio = 1.25 if name in BODIES[body] else 1.0
        np.testing.assert_allclose(task.geom(name).size, ratio * base.geom(name).size)
    assert task.body_mass.sum() == pytest.approx(14.0)


def test_bodies_move_differently_under_equal_actions():
    ends = []
    for body in BODIES:
        task = CheetahTask(body=body)
        task.reset(seed=0)
        actions = np.random.default_rng(0).uniform(-1, 1, (10, 6)).astype(np.float32)
        ends.append([task.step(action)[0] for action in actions][-1])
    for i in range(len(ends)):
        for j in range(i):
            assert np.abs(ends[i] - ends[j]).max() > 0.1


@pytest.mark.parametrize("body", BODIES)
def test_scripted_gait_runs(body):
    task = CheetahTask(body=body)
    for seed in range(3):
        assert runs(task, seed, task.scripted_action)


def test_a_reversed_joint_turns_the_other_way_and_no_other_does():
    """Bit for bit what the base body does when this one action is negated."""
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 6)).astype(np.float32)
    for index, name in enumerate(JOINTS):
        base, task = CheetahTask(), CheetahTask(reversed_joints=(name,))
        base.reset(seed=0)
        task.reset(seed=0)
        for action in actions:
            negated = action.copy()
            negated[index] *= -1
            np.testing.assert_array_equal(task.step(action)[0], base.step(negated)[0])


def test_joints_are_named_as_gymnasium_names_the_actuators():
    model = CheetahTask().simulator.model
    assert tuple(model.actuator(index).name for index in range(model.nu)) == JOINTS


@pytest.mark.parametrize("index", JOINT_TASKS)
def test_every_task_of_cheetah_joints_wants_a_gait_of_its_own(index):
    sequence = TaskSequence(SEQUENCE["tasks"], SEQUENCE["name"])
    task = sequence.make(index)
    for other in JOINT_TASKS:
        gait = sequence.make(other).scripted_action
        solved = [runs(task, seed, gait) for seed in range(3)]
        assert all(solved) if other == index else not any(solved)


def test_pace_is_the_running_mean_of_speed():
    task = CheetahTask()
    obs, _ = task.reset(seed=0)
    pace = 0.0
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 6)).astype(np.float32):
        before = task.simulator.data.qpos[0]
        obs, *_ = task.step(action)
        speed = (task.simulator.data.qpos[0] - before) / 0.05
        pace += 0.05 * (speed - pace)
        assert obs[18] == pytest.approx(speed, abs=1e-5)
        assert obs[19] == pytest.approx(pace, abs=1e-5)
        assert obs[1] ** 2 + obs[2] ** 2 == pytest.approx(1.0, abs=1e-6)


def test_reward_and_success_by_hand():
    task = CheetahTask()
    obs = torch.zeros(20)
    obs[18], obs[19] = 2.0, 0.75
    action = torch.tensor([1.0, -1.0, 0.0, 0.5, 0.0, 0.0])
    assert task.reward(obs, action, obs).item() == pytest.approx(2.0 - 0.225)
    assert task.goal_distance(obs).item() == pytest.approx(0.25)
    assert not bool(task.success(obs))
    obs[19] = 1.01
    assert bool(task.success(obs))


def test_unknown_bodies_are_refused():
    with pytest.raises(ValueError, match="did you mean 'thigh'"):
        CheetahTask(body="thihg")


def test_unknown_joints_are_refused():
    with pytest.raises(ValueError, match="did you mean 'bthigh'"):
        CheetahTask(reversed_joints=("bthihg",))
