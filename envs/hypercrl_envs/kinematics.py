"""Forward kinematics, Jacobian and inverse kinematics of the arm, for every engine.

Written from the joint table of `panda.py` alone, so that start poses do not depend on the
simulator, and engines without a Cartesian controller can be moved by tip poses.
"""

from __future__ import annotations

import math

import numpy as np

from hypercrl_envs.panda import ARM_JOINTS, BASE_POSITION, JOINTS, TIP_OFFSET

DAMPING = 1e-3


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] by `angle` rad about coordinate axis 0, 1 or 2."""
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rotation[i, i] = rotation[j, j] = cosine
    rotation[i, j], rotation[j, i] = -sine, sine
    return rotation


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle [3], rad, of a rotation matrix [3, 3]; the angle is at most π."""
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine, cosine = 0.5 * float(np.linalg.norm(skew)), 0.5 * (float(np.trace(rotation)) - 1.0)
    if sine < 1e-9:
        if cosine > 0.0:
            return 0.5 * skew
        # Half a turn: R = 2 a aᵀ - I, so any column of R + I that is not zero is along a.
        column = (rotation + np.eye(3))[:, int(np.argmax(np.diag(rotation)))]
        return math.pi * column / np.linalg.norm(column)
    return skew * (math.atan2(sine, cosine) / (2.0 * sine))


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of axis times angle [3], rad (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


def quaternion_matrix(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """Rotation matrix [3, 3] of a unit quaternion (w, x, y, z)."""
    w, *axis = quaternion
    sine = math.hypot(*axis)
    if sine == 0.0:
        return np.eye(3)
    return rotation_matrix(np.array(axis) * (2.0 * math.atan2(sine, w) / sine))


def _fixed_frames() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(offsets [7, 3], rotations [7, 3, 3], tip in the frame of the last joint [3, 4])."""
    by_name = {joint.name: joint for joint in JOINTS}
    arm = [by_name[name] for name in ARM_JOINTS]
    offsets = np.array([joint.xyz for joint in arm])
    offsets[0] += BASE_POSITION
    rotations = np.array([rotation_about(0, joint.rpy[0]) for joint in arm])
    hand = by_name["panda_hand_joint"]
    turn = rotation_about(2, hand.rpy[2])
    tip = np.column_stack((turn, np.array(hand.xyz) + turn @ (0.0, 0.0, TIP_OFFSET)))
    return offsets, rotations, tip


_OFFSETS, _ROTATIONS, _TIP = _fixed_frames()
_LOW, _HIGH = np.array([(j.lower, j.upper) for j in JOINTS if j.name in ARM_JOINTS]).T


def tip_motion(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position [3], m, and rotation matrix [3, 3] of the tip, world frame, at angles [7], rad; and
    its Jacobian [6, 7]: linear velocity (m/s) above angular velocity (rad/s) per joint velocity
    (rad/s)."""
    spins = np.zeros((7, 3, 3))
    spins[:, 0, 0] = spins[:, 1, 1] = np.cos(joints)
    spins[:, 1, 0] = np.sin(joints)
    spins[:, 0, 1] = -spins[:, 1, 0]
    spins[:, 2, 2] = 1.0
    position, rotation = np.zeros(3), np.eye(3)
    origins, axes = np.empty((7, 3)), np.empty((7, 3))
    for index, turn in enumerate(_ROTATIONS @ spins):
        position = position + rotation @ _OFFSETS[index]
        rotation = rotation @ turn
        origins[index], axes[index] = position, rotation[:, 2]
    position = position + rotation @ _TIP[:, 3]
    rotation = rotation @ _TIP[:, :3]
    (x, y, z), (u, v, w) = axes.T, (position - origins).T
    return position, rotation, np.stack((y * w - z * v, z * u - x * w, x * v - y * u, x, y, z))


def damped_step(
    joints: np.ndarray, position: np.ndarray, rotation: np.ndarray, damping: float = DAMPING
) -> tuple[np.ndarray, float]:
    """One step of damped least squares, Δq = Jᵀ (J Jᵀ + λ I)⁻¹ e, within the joint limits.

    e is the position and rotation error, λ the damping (Nakamura and Hanafusa, 1986; Wampler,
    1986).

    Args:
        joints: [7], rad.
        position, rotation: target of the tip, [3] m and [3, 3].

    Returns:
        the next joints [7], and the norm of e (m and rad) at the given ones.
    """
    at, turned, jacobian = tip_motion(joints)
    error = np.concatenate((position - at, rotation_vector(rotation @ turned.T)))
    step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(6), error)
    return np.clip(joints + step, _LOW, _HIGH), float(np.linalg.norm(error))


def solve_tip_pose(
    seed: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    *,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> np.ndarray:
    """Joint angles [7], rad, that put the tip at a pose, found from `seed` [7].

    Args:
        position: [3] target, m, world frame.
        rotation: [3, 3] target.
        tolerance: largest norm of the error (m and rad) that counts as solved.
        iterations: at most.

    Raises:
        ValueError: the pose is out of reach of the arm within its joint limits.
    """
    joints, error = np.array(seed, dtype=np.float64), math.inf
    for _ in range(iterations):
        following, error = damped_step(joints, position, rotation)
        if error < tolerance:
            return joints
        joints = following
    raise ValueError(
        f"the tip cannot reach {np.round(position, 3).tolist()}: "
        f"an error of {error:.3f} (m, rad) remains after {iterations} iterations"
    )
