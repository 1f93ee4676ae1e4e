"""The doors: latch, handles, solvability, and tasks that contradict each other."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from hypercrl_envs import make_task
from hypercrl_envs.door import DoorTask
from hypercrl_envs.door_world import RADIUS, UNLATCH_ANGLE
from hypercrl_envs.mujoco_simulator import MujocoArm

LEVERS: list[dict[str, Any]] = [
    {"handle": "lever", "turn": turn, "mirrored": mirrored}
    for turn in (1, -1)
    for mirrored in (False, True)
]


def final_hinge(task: DoorTask, seed: int) -> float:
    obs, _ = task.reset(seed=seed)
    truncated = False
    while not truncated:
        obs, *_, truncated, _ = task.step(task.scripted_action(obs))
    return float(obs[11])


def mujoco_arm(task: DoorTask) -> MujocoArm:
    assert isinstance(task.simulator, MujocoArm)
    return task.simulator


def pull_at_the_handle(task: DoorTask, force: float, seconds: float = 1.0) -> float:
    """Angle of the hinge, rad, after a pull in N square to the panel, with the hand away."""
    arm = mujoco_arm(task)
    arm.place(np.array([-0.1, 0.0, 0.8]), np.zeros(3), 0.04, {})
    door = arm.model.body("door").id
    for _ in range(round(10 * seconds)):
        # A torque about the hinge, as the force at the handle makes.
        axis = arm.data.xaxis[arm.model.joint("hinge").id]
        arm.data.xfrc_applied[door, 3:] = force * RADIUS * axis
        arm.advance(np.array([-0.1, 0.0, 0.8]), np.zeros(3), 0.04)
    return arm.hinge("hinge")[0]


def test_scripted_policy_opens_every_door(door: dict[str, Any], engine: str):
    task = DoorTask(**door, engine=engine)
    for seed in range(2):
        assert final_hinge(task, seed) > 0.35


@pytest.mark.parametrize("handle", ["lever", "round"])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("mirrored", [False, True])
def test_latch_holds_150_newton_until_the_knob_turns(handle, turn, mirrored):
    task = DoorTask(handle=handle, turn=turn, mirrored=mirrored)
    task.reset(seed=0)
    assert pull_at_the_handle(task, 150.0) < 0.005
    arm = mujoco_arm(task)
    arm.model.qpos_spring[arm.model.joint("knob").qposadr[0]] = 1.2 * turn
    arm.model.jnt_stiffness[arm.model.joint("knob").id] = 5.0
    assert pull_at_the_handle(task, 10.0) > 0.1


def test_latch_catches_again_when_the_door_falls_shut():
    task = DoorTask(handle="lever")
    task.reset(seed=0)
    arm = mujoco_arm(task)
    arm.place(np.array([-0.1, 0.0, 0.8]), np.zeros(3), 0.04, {})
    knob, hinge = arm.data.joint("knob"), arm.data.joint("hinge")
    knob.qpos[0] = UNLATCH_ANGLE + 0.05
    arm.data.eq_active[:] = 0
    hinge.qvel[0] = -0.05
    for _ in range(10):
        arm.advance(np.array([-0.1, 0.0, 0.8]), np.zeros(3), 0.04)
    assert abs(arm.hinge("knob")[0]) < UNLATCH_ANGLE
    assert arm.data.eq_active[0] == 1
    state = arm.get_state()
    arm.data.eq_active[:] = 0
    arm.set_state(state)
    assert arm.data.eq_active[0] == 1


def test_a_pull_bar_needs_no_turn_and_has_no_latch():
    task = DoorTask(handle="pull")
    task.reset(seed=0)
    assert mujoco_arm(task).model.neq == 0
    assert pull_at_the_handle(task, 10.0) > 0.1


def test_no_motion_opens_two_kinds_of_lever():
    tasks = [DoorTask(**lever) for lever in LEVERS]
    recorded = []
    for task in tasks:
        obs, _ = task.reset(seed=0)
        actions = []
        for _ in range(25):
            actions.append(task.scripted_action(obs))
            obs, *_, info = task.step(actions[-1])
        assert info["success"]
        recorded.append(actions)
    for i, actions in enumerate(recorded):
        for j, task in enumerate(tasks):
            task.reset(seed=0)
            opened = any(task.step(action)[4]["success"] for action in actions)
            assert opened == (i == j)


def test_the_start_does_not_give_the_task_away():
    tasks = [DoorTask(), *(DoorTask(**lever) for lever in LEVERS)]
    starts = [task.reset(seed=4)[0] for task in tasks]
    for start in starts[1:]:
        np.testing.assert_allclose(start, starts[0], atol=1e-6)
    assert np.linalg.norm(starts[0][3:6]) < 0.025
    assert starts[0][6] == pytest.approx(0.04)


def test_grip_point_moves_with_lever_and_door():
    task = DoorTask(handle="lever", turn=1)
    task.reset(seed=0)
    arm = mujoco_arm(task)
    before = task._observe()
    arm.data.joint("knob").qpos[0] = 0.5
    mujoco.mj_kinematics(arm.model, arm.data)
    lifted = before[3:6] - task._observe()[3:6]
    expected = 0.075 * np.array([0.0, math.cos(0.5) - 1.0, math.sin(0.5)])
    np.testing.assert_allclose(lifted, expected, atol=1e-6)
    arm.data.joint("hinge").qpos[0] = 0.3
    mujoco.mj_kinematics(arm.model, arm.data)
    assert (before[3:6] - task._observe()[3:6])[0] < -0.1


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("handle", ["pull", "lever", "round"])
def test_the_script_pulls_the_way_the_grip_point_goes(handle: str, mirrored: bool):
    task = DoorTask(handle=handle, mirrored=mirrored)
    task.reset(seed=0)
    arm = mujoco_arm(task)
    if handle != "pull":
        arm.data.joint("knob").qpos[0] = 0.8
    points = []
    for angle in (0.3 - 1e-3, 0.3 + 1e-3, 0.3):
        arm.data.joint("hinge").qpos[0] = angle
        mujoco.mj_kinematics(arm.model, arm.data)
        position, rotation = arm.body_pose(task._grip_body)
        points.append(position + rotation @ task._grip_point)
    way = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
    np.testing.assert_allclose(task._along_the_door(task._observe()), way, atol=1e-5)


def test_reward_by_hand():
    lever, pull = DoorTask(handle="lever", turn=-1), DoorTask()
    obs = torch.zeros(14, dtype=torch.float64)
    action = torch.zeros(7, dtype=torch.float64)
    at_rest = -math.log(5e-3) - 5.0
    assert pull.reward(obs, action, obs).item() == pytest.approx(at_rest, abs=1e-5)
    obs[3:6] = torch.tensor([0.03, 0.0, 0.04])
    near = -0.05 - math.log(0.05**2 + 5e-3) - 5.0
    assert pull.reward(obs, action, obs).item() == pytest.approx(near)
    obs[10], obs[11] = -0.4, 0.2
    assert pull.reward(obs, action, obs).item() == pytest.approx(near + 10.0)
    assert lever.reward(obs, action, obs).item() == pytest.approx(near + 10.0 + 8.0)
    obs[10] = -1.2
    assert lever.reward(obs, action, obs).item() == pytest.approx(near + 10.0 + 12.0)
    assert pull.goal_distance(obs).item() == pytest.approx(0.055)
    assert not bool(pull.success(obs))
    obs[11] = 0.31
    assert bool(pull.success(obs))
    assert pull.goal_distance(obs).item() == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"handle": "levr"}, "did you mean 'lever'"),
        ({"handle": "lever", "turn": 0}, "turn must be 1 or -1"),
        ({"handle": "lever", "turn": True}, "turn must be 1 or -1"),
        ({"handle": "pull", "turn": -1}, "does not turn"),
        ({"mirrored": 1}, "mirrored must be true or false"),
    ],
)
def test_wrong_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_task("door", **wrong)


HANDLE = ("bar", "stem", "lever", "spindle", "round", "ridge")


def seen(task: DoorTask, point: np.ndarray) -> np.ndarray:
    """Where in the picture of the task's camera a point is; inside it both numbers are in ±1."""
    arm = mujoco_arm(task)
    camera = arm.model.camera(task.camera).id
    x, y, z = arm.data.cam_xmat[camera].reshape(3, 3).T @ (point - arm.data.cam_xpos[camera])
    half = math.tan(math.radians(arm.model.cam_fovy[camera]) / 2)
    return np.array([x, y]) / (-z * half)


def share_in_sight(task: DoorTask) -> float:
    """How many of the points along the handle nothing solid stands in front of."""
    arm = mujoco_arm(task)
    model, data = arm.model, arm.data
    eye = data.cam_xpos[model.camera(task.camera).id]
    handle = [i for i in range(model.ngeom) if model.geom(i).name.startswith(HANDLE)]
    parts = [i for i in handle if model.geom(i).name in ("bar", "lever", "round")]
    hits = []
    for part in parts:
        axis = data.geom_xmat[part].reshape(3, 3)[:, 2]
        for along in np.linspace(-1.0, 1.0, 9):
            point = data.geom_xpos[part] + along * model.geom_size[part, 1] * axis
            met = np.zeros(1, np.int32)
            mujoco.mj_ray(model, data, eye, point - eye, None, True, -1, met)
            hits.append(met[0] in handle)
    return float(np.mean(hits))


@pytest.mark.parametrize("camera", ["front", "side", "top"])
def test_cameras_show_the_whole_arm_and_the_whole_door(door: dict[str, Any], camera: str):
    """And the front one a part of the handle, until the hand turns it."""
    task = DoorTask(**door, camera=camera)
    obs, _ = task.reset(seed=0)
    for _ in range(60):
        arm = mujoco_arm(task)
        model, data = arm.model, arm.data
        mujoco.mj_forward(model, data)
        names = [model.geom(i).name for i in range(model.ngeom)]
        points = [data.geom_xpos[i] for i, name in enumerate(names) if "table" not in name]
        panel, lintel = model.geom("panel").id, model.site("lintel").id
        for part, centre, turn, size in (
            (panel, data.geom_xpos, data.geom_xmat, model.geom_size),
            (lintel, data.site_xpos, data.site_xmat, model.site_size),
        ):
            corners = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
            points += list(centre[part] + corners * size[part] @ turn[part].reshape(3, 3).T)
        assert all(np.abs(seen(task, point)).max() < 0.99 for point in points)
        if camera == "front" and abs(obs[10]) < 0.05:
            assert share_in_sight(task) > 0.1
        obs, *_ = task.step(task.scripted_action(obs))
