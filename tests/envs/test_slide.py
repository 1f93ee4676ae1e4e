"""What makes slide a task: the block is out of reach, and friction decides where it stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hypercrl_envs.slide import GRAVITY, SlideTask

FRICTIONS = {0.07, 0.2, 0.025, 0.12, 0.04}


def slide_alone(task: SlideTask, speed: float) -> float:
    """How far the block slides, m, when nothing touches it."""
    task.reset(seed=0)
    arm = task.simulator
    arm.place(np.array([-0.3, 0.1, 0.3]), np.zeros(3), 0.0, {"box": (np.array([-0.1, 0, 0.04]), 0)})
    arm.data.joint("box").qvel[0] = speed  # type: ignore[attr-defined]
    start = arm.body_pose("box")[0][0]
    for _ in range(20):
        arm.advance(np.array([-0.3, 0.1, 0.3]), np.zeros(3), 0.0)
    return float(arm.body_pose("box")[0][0] - start)


def test_friction_decides_how_far_a_released_block_slides(friction: float):
    # Coulomb: v² / (2 μ g).
    expected = 0.5**2 / (2 * friction * GRAVITY)
    assert slide_alone(SlideTask(friction=friction), 0.5) == pytest.approx(expected, rel=0.1)


def final_distance(task: SlideTask, seed: int) -> float:
    obs, info = task.reset(seed=seed)
    truncated = False
    while not truncated:
        obs, *_, truncated, info = task.step(task.scripted_action(obs))
    return float(info["goal_distance"])


def test_scripted_policy_solves(friction: float):
    task = SlideTask(friction=friction)
    for seed in range(10):
        assert final_distance(task, seed) < task.success_distance


def test_the_speed_of_any_other_friction_misses(friction: float):
    task = SlideTask(friction=friction)
    for believed in FRICTIONS - {friction}:
        task.friction = believed
        distances = [final_distance(task, seed) for seed in range(3)]
        # A second strike saves one of the starts with the nearest friction.
        assert sum(distance < task.success_distance for distance in distances) <= 1
        assert sum(distances) / 3 > task.success_distance


def test_bullet_is_refused():
    with pytest.raises(ValueError, match="engine"):
        SlideTask(engine="bullet")


def test_success_is_the_distance_of_the_centre_however_the_block_is_turned():
    task = SlideTask()
    square = 0.05 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # by 90 degrees
    obs = torch.zeros(3, 15)
    for row, centre in zip(obs, ([0.2, 0.0], [0.2 - 0.027, 0.028], [0.2, -0.041]), strict=True):
        row[2:10] = torch.tensor((np.array(centre) + square @ turn.T).ravel())
    expected = [0.0, np.hypot(0.027, 0.028), 0.041]
    np.testing.assert_allclose(task.goal_distance(obs), expected, atol=1e-6)
    assert task.success(obs).tolist() == [True, True, False]


def test_the_goal_is_out_of_reach():
    task = SlideTask()
    reach = task.workspace[1][0] + task.half + 0.02
    assert task.goal[0] - task.success_distance > reach


@pytest.mark.parametrize("friction_given", [0.0, 0.3, float("nan"), "low"])
def test_wrong_frictions_are_refused(friction_given):
    with pytest.raises(ValueError, match="friction"):
        SlideTask(friction=friction_given)
