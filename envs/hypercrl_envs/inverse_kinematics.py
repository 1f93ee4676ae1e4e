"""Inverse kinematics by damped least squares, used once per episode for the start pose."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco
import numpy as np

from hypercrl_envs.panda import ARM_JOINTS


def solve_tip_pose(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    site: int,
    position: np.ndarray,
    quaternion: np.ndarray,
    *,
    damping: float = 1e-3,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> None:
    """Move the arm's joints in `data.qpos`, from where they are, until the site has a pose.

    Each iteration solves Δq = Jᵀ (J Jᵀ + λ I)⁻¹ e (Nakamura and Hanafusa, 1986; Wampler, 1986),
    with e the position and rotation error and λ the damping. Velocities are not changed. On
    return the kinematics of `data` belong to the joints found.

    Args:
        site: index of the site to place.
        position: [3] target, m, world frame.
        quaternion: [4] target (w, x, y, z), world frame.
        damping: λ above.
        tolerance: largest norm of e (m and rad) that counts as solved.
        iterations: at most.

    Raises:
        ValueError: the pose is out of reach of the arm within its joint limits.
    """
    joints = [model.joint(name) for name in ARM_JOINTS]
    qpos_index = np.array([joint.qposadr[0] for joint in joints])
    dof_index = np.array([joint.dofadr[0] for joint in joints])
    low, high = np.array([joint.range for joint in joints]).T
    jacobian = np.zeros((6, model.nv))
    error, current = np.zeros(6), np.zeros(4)
    for _ in range(iterations):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        _pose_error(data, site, position, quaternion, current, error)
        if np.linalg.norm(error) < tolerance:
            return
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
        arm = jacobian[:, dof_index]
        step = arm.T @ np.linalg.solve(arm @ arm.T + damping * np.eye(6), error)
        data.qpos[qpos_index] = np.clip(data.qpos[qpos_index] + step, low, high)
    raise ValueError(
        f"the tip cannot reach {np.round(position, 3).tolist()}: "
        f"{np.linalg.norm(error[:3]):.3f} m remain after {iterations} iterations"
    )


def _pose_error(
    data: mujoco.MjData,
    site: int,
    position: np.ndarray,
    quaternion: np.ndarray,
    current: np.ndarray,
    error: np.ndarray,
) -> None:
    error[:3] = position - data.site_xpos[site]
    mujoco.mju_mat2Quat(current, data.site_xmat[site])
    # The Jacobian of rotation is in world axes; the difference of quaternions in those of
    # `current`.
    mujoco.mju_subQuat(error[3:], quaternion, current)
    error[3:] = data.site_xmat[site].reshape(3, 3) @ error[3:]
