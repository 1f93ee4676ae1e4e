"""What makes the push tasks worth learning in sequence: contacts, turning, solvability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hypercrl_envs import make_task
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.push import PushTask

FRAMES: list[dict[str, Any]] = [{"frame": 90}, {"frame": -90}, {"frame": 180}, {"flip_y": True}]
FORWARD = np.array([1.0, 0.0], np.float32)


def yaw_degrees(obs: np.ndarray) -> float:
    corners = obs[2:].reshape(4, 2)
    x, y = (corners[2:] - corners[:2]).sum(axis=0)
    return float(np.degrees(np.arctan2(y, x)))


def centred(densities: tuple[float, float]) -> PushTask:
    """A task whose box is exactly straight and centred before the tip."""
    task = PushTask(densities=densities)
    task.reset(seed=0)
    place_straight(task)
    return task


def place_straight(task: PushTask) -> None:
    tip = np.array([-0.22, 0.0, task.tip_height])
    task.simulator.place(tip, np.zeros(3), 0.0, {"box": (np.array([-0.1, 0.0, 0.04]), 0.0)})


def mujoco_arm(task: PushTask) -> MujocoArm:
    assert isinstance(task.simulator, MujocoArm)
    return task.simulator


def robot_bodies_touching_box(task: PushTask) -> set[str]:
    model, data = mujoco_arm(task).model, mujoco_arm(task).data
    box = model.body("box").id
    bodies = set()
    for contact in data.contact:
        pair = {int(model.geom_bodyid[contact.geom1]), int(model.geom_bodyid[contact.geom2])}
        if box in pair:
            bodies |= {model.body(body).name for body in pair - {box, 0}}
    return bodies


def test_centred_push_touches_with_fingers_only(densities):
    task = centred(densities)
    touching = set()
    for _ in range(15):
        task.step(FORWARD)
        touching |= robot_bodies_touching_box(task)
    assert touching
    assert touching <= {"panda_leftfinger", "panda_rightfinger"}


def test_palm_would_touch_at_a_lower_tip(monkeypatch):
    monkeypatch.setattr(PushTask, "tip_height", 0.03)
    task = centred((500, 500))
    touching = set()
    for _ in range(15):
        task.step(FORWARD)
        touching |= robot_bodies_touching_box(task)
    assert "panda_hand" in touching


def test_centred_push_turns_toward_the_heavy_side(densities):
    left, right = densities
    task = centred(densities)
    for _ in range(16):
        obs, *_ = task.step(FORWARD)
    yaw = yaw_degrees(obs)
    if left == right:
        assert abs(yaw) < 3.0
    else:
        # The light side runs ahead: heavy right means clockwise, which is negative.
        assert np.sign(yaw) == np.sign(left - right)
        assert abs(yaw) > 25.0


def test_turning_of_the_opposite_pair_is_opposite():
    yaws = []
    for densities in [(100, 500), (500, 100)]:
        task = centred(densities)
        for _ in range(16):
            obs, *_ = task.step(FORWARD)
        yaws.append(yaw_degrees(obs))
    assert -75 < yaws[0] < -40
    assert 40 < yaws[1] < 75


def test_scripted_policy_solves(parameters: dict[str, Any]):
    task = make_task("push", **parameters)
    for seed in range(3):
        obs, info = task.reset(seed=seed)
        assert not info["success"]
        solved_at, truncated, steps = None, False, 0
        while not truncated:
            obs, _, terminated, truncated, info = task.step(task.scripted_action(obs))
            steps += 1
            assert not terminated
            if solved_at is None and info["success"]:
                solved_at = steps
        assert steps == task.max_episode_steps == 60
        assert solved_at is not None
        assert solved_at <= 30
        assert info["success"]
        assert info["goal_distance"] < 0.03


@pytest.mark.parametrize(
    ("parameters_of_frame", "along_x", "along_y"),
    [
        ({}, (1, 0), (0, 1)),
        ({"frame": 90}, (0, 1), (-1, 0)),
        ({"frame": -90}, (0, -1), (1, 0)),
        ({"frame": 180}, (-1, 0), (0, -1)),
        ({"flip_y": True}, (1, 0), (0, -1)),
        ({"frame": 90, "flip_y": True}, (0, 1), (1, 0)),
        ({"frame": 30}, (0.8660254, 0.5), (-0.5, 0.8660254)),
    ],
)
def test_tip_moves_in_the_control_frame(parameters_of_frame, along_x, along_y):
    task = PushTask(**parameters_of_frame)
    for action, direction in [((1, 0), along_x), ((0, 1), along_y)]:
        task.reset(seed=1)
        before = task.simulator.tip
        task.step(np.array(action, np.float32))
        moved = (task.simulator.tip - before)[:2]
        assert 0.012 < np.linalg.norm(moved) < 0.025
        assert moved @ direction / np.linalg.norm(moved) > 0.99


def test_exploration_drifts_toward_the_box_in_every_frame():
    assert PushTask().exploration.bias_low == pytest.approx((-0.2, 0.0))
    assert PushTask().exploration.bias_high == pytest.approx((0.6, 0.0))
    for frame in FRAMES:
        task = PushTask(**frame)
        low = np.array(task.exploration.bias_low)
        high = np.array(task.exploration.bias_high)
        assert (low <= high).all()
        ends = sorted((task._control_frame @ corner)[0] for corner in (low, high))
        assert ends == pytest.approx([-0.2, 0.6])


@pytest.mark.bullet
def test_scripted_policy_solves_in_bullet(densities):
    task = PushTask(densities=densities, engine="bullet")
    obs, info = task.reset(seed=0)
    for _ in range(task.max_episode_steps):
        obs, *_, info = task.step(task.scripted_action(obs))
    assert info["success"]


def test_reward_and_success_by_hand():
    task = PushTask()
    goal = torch.tensor([0.12, 0.0, 0.07, -0.08, 0.07, 0.08, 0.23, -0.08, 0.23, 0.08])
    action = torch.tensor([0.6, 0.8])
    assert task.reward(goal, 0 * action, goal).item() == pytest.approx(1.0)
    assert task.reward(goal, action, goal).item() == pytest.approx(1.0 - 0.25 / 4)
    assert task.goal_distance(goal).item() == pytest.approx(0.0, abs=1e-6)
    away = goal.clone()
    away[2:4] += torch.tensor([0.03, 0.04])
    expected = (3 + 1 - np.tanh(0.5)) / 4
    assert task.reward(goal, 0 * action, away).item() == pytest.approx(expected, rel=1e-5)
    assert task.goal_distance(away).item() == pytest.approx(0.05, rel=1e-5)
    assert bool(task.success(goal))
    assert not bool(task.success(away))


def test_observation_is_tip_to_box_and_corners():
    task = PushTask()
    obs, _ = task.reset(seed=3)
    centre = mujoco_arm(task).data.body("box").xpos[:2]
    np.testing.assert_allclose(obs[:2], centre - task.simulator.tip[:2], atol=1e-6)
    corners = obs[2:].reshape(4, 2)
    np.testing.assert_allclose(corners.mean(axis=0), centre, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(corners - centre, axis=1), 0.08 * 2**0.5, rtol=1e-5)
    assert obs[0] == pytest.approx(0.12, abs=1e-5)
    assert task.simulator.tip[2] == pytest.approx(0.05, abs=1e-5)


def test_heavier_block_is_darker():
    task = PushTask(densities=(100, 500))
    left, right = (mujoco_arm(task).model.geom(f"{side}_block") for side in ("left", "right"))
    assert left.rgba[:3].sum() > right.rgba[:3].sum() + 0.3
    np.testing.assert_allclose(left.pos, [0.0, 0.04, 0.0])
    assert mujoco_arm(task).model.body("box").mass[0] == pytest.approx(600 * 0.16 * 0.08 * 0.08)


def test_random_actions_stay_on_the_table():
    task = PushTask(densities=(1000, 100))
    for seed in range(4):
        task.reset(seed=seed)
        low, high = (-0.6, -1.0), (1.4, 1.0)
        actions = np.random.default_rng(seed).uniform(low, high, size=(60, 2))
        for action in actions:
            obs, *_ = task.step(action)
            assert task.observation_space.contains(obs)
            assert 0.045 < task.simulator.tip[2] < 0.057
            assert mujoco_arm(task).data.body("box").xpos[2] == pytest.approx(0.04, abs=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"densities": (500,)},
        {"densities": (500, 500, 500)},
        {"densities": (50, 500)},
        {"densities": (500, 3000)},
        {"densities": (float("nan"), 500)},
        {"densities": "heavy"},
        {"densities": 500},
        {"frame": float("inf")},
        {"frame": "90"},
        {"flip_y": "no"},
        {"start_yaw": 0.8},
        {"start_yaw": -0.1},
        {"start_yaw": float("nan")},
        {"start_yaw": "far"},
        {"camera": "behind"},
        {"width": 0},
        {"render_mode": "humn"},
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(wrong):
    named = r"densities|frame|flip_y|start_yaw|camera|width|render mode"
    with pytest.raises(ValueError, match=named):
        PushTask(**wrong)


def test_a_box_starts_turned_by_up_to_the_angle_that_is_asked_for():
    """Uniformly, either way; and nothing touches it yet."""
    task = PushTask(start_yaw=0.7)
    yaws = []
    for seed in range(200):
        corners = task.reset(seed=seed)[0][2:10].reshape(4, 2)
        x, y = (corners[2:] - corners[:2]).sum(axis=0)
        yaws.append(np.arctan2(y, x))
        still = task.step(np.zeros(2, np.float32))[0][2:10].reshape(4, 2)
        np.testing.assert_allclose(still, corners, atol=1e-3)
    counts = np.histogram(yaws, bins=4, range=(-0.7, 0.7))[0]
    assert counts.sum() == 200
    assert counts.min() > 30
