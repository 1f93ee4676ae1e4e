"""The two engines against each other: kinematics, masses, motion in air, turning, latch."""

from __future__ import annotations

import sys
from typing import Any

import mujoco
import numpy as np
import pytest

from hypercrl_envs import make_task
from hypercrl_envs.bullet_simulator import BulletArm
from hypercrl_envs.bullet_world import joint_index
from hypercrl_envs.door import DoorTask
from hypercrl_envs.door_world import RADIUS
from hypercrl_envs.kinematics import tip_motion
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.panda import ARM_JOINTS, FINGER_JOINTS, HAND_LINK, TIP_OFFSET
from hypercrl_envs.push import PushTask
from hypercrl_envs.servo import JOINT_ARMATURE
from hypercrl_envs.world import Body, Shape, mass_properties

NO_TURN = np.zeros(3)


def bullet_arm(task: str = "push", **parameters: Any) -> BulletArm:
    arm = make_task(task, engine="bullet", **parameters).simulator  # type: ignore[attr-defined]
    assert isinstance(arm, BulletArm)
    return arm


def mujoco_arm(task: str = "push", **parameters: Any) -> MujocoArm:
    arm = make_task(task, **parameters).simulator  # type: ignore[attr-defined]
    assert isinstance(arm, MujocoArm)
    return arm


def postures(count: int) -> np.ndarray:
    low, high = mujoco_arm().model.jnt_range[:7].T
    return np.random.default_rng(0).uniform(low, high, size=(count, 7))


@pytest.mark.bullet
def test_forward_kinematics_agree():
    arm = bullet_arm()
    client, robot = arm._client, arm._robot
    hand = next(
        i
        for i in range(client.getNumJoints(robot))
        if client.getJointInfo(robot, i)[12].decode() == HAND_LINK
    )
    for joints in postures(20):
        for name, angle in zip(ARM_JOINTS, joints, strict=True):
            client.resetJointState(robot, joint_index(client, robot, name), angle)
        position, quaternion = client.getLinkState(robot, hand, computeForwardKinematics=1)[4:6]
        rotation = np.array(client.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
        expected, turned, _ = tip_motion(joints)
        np.testing.assert_allclose(position + TIP_OFFSET * rotation[:, 2], expected, atol=1e-6)
        np.testing.assert_allclose(rotation, turned, atol=1e-6)


@pytest.mark.bullet
def test_mass_matrices_agree():
    ours, theirs = mujoco_arm(), bullet_arm()
    dofs = [ours.model.joint(name).dofadr[0] for name in (*ARM_JOINTS, *FINGER_JOINTS)]
    full = np.zeros((ours.model.nv, ours.model.nv))
    for joints in postures(10):
        ours.data.qpos[ours._arm_qpos] = joints
        ours.data.qpos[ours._finger_qpos] = 0.0
        mujoco.mj_forward(ours.model, ours.data)
        for column, unit in enumerate(np.eye(ours.model.nv)):
            mujoco.mj_mulM(ours.model, ours.data, full[column], unit)
        expected = full[np.ix_(dofs, dofs)] - np.diag(ours.model.dof_armature[dofs])
        client = theirs._client
        found = np.array(client.calculateMassMatrix(theirs._robot, [*joints, 0.0, 0.0]))
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    assert ours.model.dof_armature[dofs[0]] == JOINT_ARMATURE


@pytest.mark.bullet
@pytest.mark.parametrize("case", ["straight", "random", "turning"])
def test_paths_in_air_agree_within_10_millimetres(case):
    generator = np.random.default_rng(0)
    actions = {
        "straight": np.tile([1.0, 0.3], (20, 1)),
        "random": generator.uniform(-1, 1, (20, 2)),
        "turning": np.stack((np.cos(np.arange(20) / 3), np.sin(np.arange(20) / 3)), 1),
    }[case]
    paths = []
    for arm in (mujoco_arm(), bullet_arm()):
        box = (np.array([0.3, 0.4, 0.04]), 0.0)
        arm.place(np.array([-0.22, 0.0, 0.2]), NO_TURN, 0.0, {"box": box})
        path = []
        for action in actions:
            target = arm.tip
            target[:2] += 0.025 * action
            target[2] = 0.2
            arm.advance(target, NO_TURN, 0.0)
            path.append(arm.tip)
        paths.append(np.array(path))
    assert np.linalg.norm(paths[0] - paths[1], axis=1).max() < 0.01


def test_starts_agree(engine: str):
    for spec in ({"task": "push"}, {"task": "door", "handle": "lever"}):
        expected, _ = make_task(**spec).reset(seed=5)
        found, _ = make_task(**spec, engine=engine).reset(seed=5)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.bullet
def test_boxes_turn_toward_the_heavy_side_in_bullet():
    for densities, sign in [((100, 500), -1), ((500, 100), 1)]:
        task = PushTask(densities=densities, engine="bullet")
        task.reset(seed=0)
        box = (np.array([-0.1, 0.0, 0.04]), 0.0)
        task.simulator.place(np.array([-0.22, 0.0, 0.05]), NO_TURN, 0.0, {"box": box})
        for _ in range(16):
            task.step(np.array([1.0, 0.0], np.float32))
        rotation = task.simulator.body_pose("box")[1]
        assert 40 < sign * np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0])) < 75


def pull(arm: BulletArm, force: float, side: int = 1) -> float:
    """Angle of the hinge, rad, after a second of pull at the handle, N, with the hand away."""
    arm.place(np.array([-0.1, 0.0, 0.8]), NO_TURN, 0.04, {})
    client, (door, link) = arm._client, arm._links["door"]
    for _ in range(250):
        position, rotation = arm.body_pose("door")
        at = position + rotation @ (0.0, -side * RADIUS, 0.0)
        push = -force * rotation[:, 0]
        client.applyExternalForce(door, link, push.tolist(), at.tolist(), client.WORLD_FRAME)
        client.stepSimulation()
    return arm.hinge("hinge")[0]


@pytest.mark.bullet
@pytest.mark.parametrize("handle", ["lever", "round"])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("mirrored", [False, True])
def test_latch_holds_150_newton_in_bullet_until_the_knob_turns(handle, turn, mirrored):
    arm = bullet_arm("door", handle=handle, turn=turn, mirrored=mirrored)
    assert pull(arm, 150.0, side=-1 if mirrored else 1) < 0.01
    arm._client.resetJointState(*arm._joints["knob"], 0.8 * turn)
    arm._move_latch()
    client, (door, link) = arm._client, arm._links["door"]
    for _ in range(100):
        client.applyExternalForce(door, link, (-10, 0, 0), (0.06, 0, 0.8), client.WORLD_FRAME)
        client.stepSimulation()
    assert arm.hinge("hinge")[0] > 0.02


@pytest.mark.bullet
def test_a_bar_has_no_latch_in_bullet():
    assert pull(bullet_arm("door", handle="pull"), 10.0) > 0.1


def test_mass_properties_match_mujocos():
    shapes = (
        Shape("a", "box", (0.1, 0.2, 0.05), 700.0, (1, 1, 1, 1), (0.1, 0.0, -0.2)),
        Shape("b", "cylinder", (0.03, 0.1), 900.0, (1, 1, 1, 1), (0.0, 0.3, 0.0), axis=0),
        Shape("c", "capsule", (0.02, 0.07), 2000.0, (1, 1, 1, 1), (0.0, 0.0, 0.1), axis=1),
    )
    spec = mujoco.MjSpec()
    from hypercrl_envs.mujoco_world import _add_body

    _add_body(spec.worldbody, Body("body", (0.0, 0.0, 0.0), shapes))
    body = spec.compile().body("body")
    mass, centre, inertia = mass_properties(shapes)
    assert mass == pytest.approx(body.mass[0])
    np.testing.assert_allclose(centre, body.ipos, atol=1e-9)
    np.testing.assert_allclose(np.linalg.eigvalsh(inertia), np.sort(body.inertia), rtol=1e-9)


def test_missing_pybullet_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(ValueError, match=r"pip install 'hypercrl\[bullet\]'.*3\.11"):
        DoorTask(engine="bullet")


def test_unknown_engines_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'bullet'"):
        make_task("push", engine="bulet")
