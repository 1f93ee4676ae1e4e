"""The robot description against independent computations and published numbers."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from hypercrl_envs import kinematics
from hypercrl_envs.kinematics import quaternion_matrix, rotation_matrix, rotation_vector
from hypercrl_envs.mujoco_scene import TIP_SITE, arm_scene, compile_scene
from hypercrl_envs.panda import JOINTS, LINKS, READY_JOINTS, TIP_OFFSET, panda_urdf
from hypercrl_envs.world import HAND_DOWN

# Modified Denavit-Hartenberg rows (a, d, alpha) from the maker's documentation.
DH = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -math.pi / 2),
    (0.0, 0.316, math.pi / 2),
    (0.0825, 0.0, math.pi / 2),
    (-0.0825, 0.384, -math.pi / 2),
    (0.0, 0.0, math.pi / 2),
    (0.088, 0.0, math.pi / 2),
]


def craig(a: float, d: float, alpha: float, theta: float) -> np.ndarray:
    ca, sa, ct, st = math.cos(alpha), math.sin(alpha), math.cos(theta), math.sin(theta)
    return np.array(
        [
            [ct, -st, 0.0, a],
            [st * ca, ct * ca, -sa, -d * sa],
            [st * sa, ct * sa, ca, d * ca],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def tip_pose(joints: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = -0.56
    for row, theta in zip(DH, joints, strict=True):
        pose = pose @ craig(*row, theta)
    return pose @ craig(0.0, 0.107 + TIP_OFFSET, 0.0, -math.pi / 4)


@pytest.fixture(scope="module")
def arm() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = compile_scene(arm_scene(0.004, HAND_DOWN))
    return model, mujoco.MjData(model)


def test_forward_kinematics_matches_denavit_hartenberg(arm):
    model, data = arm
    low, high = model.jnt_range[:7].T
    for joints in np.random.default_rng(0).uniform(low, high, size=(50, 7)):
        data.qpos[:7] = joints
        mujoco.mj_kinematics(model, data)
        expected = tip_pose(joints)
        site = data.site(TIP_SITE)
        np.testing.assert_allclose(site.xpos, expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(site.xmat.reshape(3, 3), expected[:3, :3], atol=1e-12)


def test_ready_pose_points_down_at_the_known_place(arm):
    # In the plane: upper arm 45° back, forearm horizontal, hand vertical, three small offsets.
    model, data = arm
    data.qpos[:7] = READY_JOINTS
    mujoco.mj_kinematics(model, data)
    half = math.sqrt(0.5)
    x = -half * 0.316 + half * 0.0825 + 0.384 + 0.088
    z = 0.333 + half * 0.316 + half * 0.0825 + 0.0825 - 0.107 - TIP_OFFSET
    np.testing.assert_allclose(data.site(TIP_SITE).xpos, [x - 0.56, 0.0, z], atol=1e-12)
    np.testing.assert_allclose(data.site(TIP_SITE).xmat[8], -1.0)


def test_masses_and_inertias_survive_the_urdf(arm):
    model, _ = arm
    published = [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522]
    compiled = [model.body(f"panda_link{i}").mass[0] for i in range(1, 8)]
    np.testing.assert_allclose(compiled, published, rtol=1e-12)
    assert model.body_mass.sum() == pytest.approx(sum(published) + 0.629769 + 0.73 + 2 * 0.015)
    for link in LINKS:
        body = model.body(link.name)
        xx, yy, zz, xy, xz, yz = link.inertia
        principal = np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        np.testing.assert_allclose(np.sort(body.inertia), principal, rtol=1e-9)
        # A rigid body's moments satisfy the triangle inequality.
        assert principal[2] <= principal[0] + principal[1] + 1e-12


def test_urdf_names_limits_and_capsules():
    urdf = panda_urdf()
    model = mujoco.MjModel.from_xml_string(urdf)
    for joint in JOINTS:
        if joint.kind == "fixed":
            continue
        np.testing.assert_allclose(model.joint(joint.name).range, [joint.lower, joint.upper])
        np.testing.assert_allclose(
            model.jnt_actfrcrange[model.joint(joint.name).id], [-joint.effort, joint.effort]
        )
    assert urdf.count("<capsule") == sum(len(link.capsules) for link in LINKS)


def test_capsules_lie_where_the_description_says(arm):
    model, _ = arm
    for link in LINKS:
        for index, capsule in enumerate(link.capsules):
            geom = model.geom(f"{link.name}_capsule{index}").id
            rotation = np.empty(9)
            mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
            axis = rotation.reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
            ends = model.geom_pos[geom] + np.array([-axis, axis])
            np.testing.assert_allclose(ends, [capsule.start, capsule.end], atol=1e-9)
            assert model.geom_size[geom, 0] == pytest.approx(capsule.radius)


def test_palm_is_wide_and_fingers_end_at_the_tip():
    palm = next(link for link in LINKS if link.name == "panda_hand").capsules[0]
    assert palm.end[1] - palm.start[1] + 2 * palm.radius == pytest.approx(0.2)
    finger = next(link for link in LINKS if link.name == "panda_leftfinger").capsules[0]
    assert 0.0584 + finger.end[2] + finger.radius == pytest.approx(TIP_OFFSET)


def test_our_kinematics_match_denavit_hartenberg_and_mujoco(arm):
    model, data = arm
    low, high = model.jnt_range[:7].T
    for joints in np.random.default_rng(1).uniform(low, high, size=(20, 7)):
        position, rotation, ours = kinematics.tip_motion(joints)
        expected = tip_pose(joints)
        np.testing.assert_allclose(position, expected[:3, 3], atol=1e-12)
        np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-12)
        data.qpos[:7] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], model.site(TIP_SITE).id)
        np.testing.assert_allclose(ours, jacobian[:, :7], atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-13, 0.3, 2.0, 3.0, math.pi])
def test_rotation_vectors_and_matrices_agree(angle):
    for axis in ([1, 0, 0], [0, -1, 0], [1, 2, -2], [-3, 1, 0.5]):
        vector = angle * np.array(axis) / np.linalg.norm(axis)
        rotation = rotation_matrix(vector)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(rotation_matrix(rotation_vector(rotation)), rotation, atol=1e-9)
        if angle < math.pi:
            np.testing.assert_allclose(rotation_vector(rotation), vector, atol=1e-9)
    np.testing.assert_allclose(quaternion_matrix(HAND_DOWN), np.diag([1, -1, -1]), atol=1e-12)


def test_inverse_kinematics_reaches_and_refuses(arm):
    low, high = arm[0].jnt_range[:7].T
    down = quaternion_matrix(HAND_DOWN)
    seed = np.array(READY_JOINTS)
    for target in [(-0.22, 0.0, 0.05), (0.1, 0.2, 0.05), (-0.25, -0.2, 0.3)]:
        joints = kinematics.solve_tip_pose(seed, np.array(target), down)
        expected = tip_pose(joints)
        np.testing.assert_allclose(expected[:3, 3], target, atol=2e-6)
        np.testing.assert_allclose(expected[:3, :3], down, atol=2e-6)
        assert ((low <= joints) & (joints <= high)).all()
    # A hand that points forward: unlike half a turn, this rotation is not its own inverse.
    w, x, y, z = (np.array([1.0, 0.2, 1.0, 0.0]) / np.linalg.norm([1.0, 0.2, 1.0, 0.0])).tolist()
    forward = quaternion_matrix((w, x, y, z))
    seed = np.array((0.0, 0.3, 0.0, -1.9, 0.0, 3.3, 0.8))
    joints = kinematics.solve_tip_pose(seed, np.array((0.0, 0.1, 0.6)), forward)
    np.testing.assert_allclose(tip_pose(joints)[:3, :3], forward, atol=2e-6)
    with pytest.raises(ValueError, match="cannot reach"):
        kinematics.solve_tip_pose(seed, np.array((1.0, 0.0, 0.05)), down)


def test_controller_follows_and_holds(arm):
    model, data = arm
    start = np.array((-0.22, 0.0, 0.05))
    mujoco.mj_resetData(model, data)
    data.qpos[:7] = kinematics.solve_tip_pose(
        np.array(READY_JOINTS), start, quaternion_matrix(HAND_DOWN)
    )
    model.qpos_spring[:7] = data.qpos[:7]
    for target in [start, np.add(start, (0.2, 0.1, 0.1)), start]:
        data.ctrl[:3] = target
        mujoco.mj_step(model, data, nstep=400)
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(data.site(TIP_SITE).xpos, target, atol=3e-3)
        assert data.site(TIP_SITE).xmat[8] < -0.999
        assert np.abs(data.qvel).max() < 0.02
        assert np.abs(data.qpos[7:9]).max() < 2e-3


def test_scene_is_dense_and_skips_self_collision(arm):
    model, data = arm
    assert mujoco.mj_isSparse(model) == 0
    data.qpos[:7] = (0.0, 1.7, 0.0, -3.0, 0.0, 3.7, 0.0)
    mujoco.mj_forward(model, data)
    table = model.geom("table").id
    assert all(table in (contact.geom1, contact.geom2) for contact in data.contact)
