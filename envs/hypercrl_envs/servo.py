"""The Cartesian impedance that moves the tip: its numbers, and the motion that it makes in air.

Six springs and dampers with limited force pull the tip to a target pose x*:
    f = clip(kp (x* - x) - kv dx/dt, ±limit),    M(q) d²q/dt² = Jᵀ f - d dq/dt - s (q - q0),
with joint damping d and weak springs s that hold the null space; gravity is compensated. M contains
the armature (the reflected inertia of motors and gears).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hypercrl_envs.damping import check_explicit_damper
from hypercrl_envs.kinematics import rotation_vector, tip_motion


@dataclass(frozen=True)
class Impedance:
    """Stiffness, damping and force limit of one kind of actuator (N/m or N·m/rad, ...)."""

    kp: float
    kv: float
    limit: float


TRANSLATION = Impedance(kp=3000.0, kv=160.0, limit=80.0)
ROTATION = Impedance(kp=150.0, kv=9.0, limit=15.0)
GRIP = Impedance(kp=2000.0, kv=60.0, limit=70.0)

JOINT_DAMPING = 1.0
JOINT_ARMATURE = 0.1
NULL_SPACE_STIFFNESS = 1.0

_BOTH = (TRANSLATION, ROTATION)
_KP, _KV, _LIMIT = (
    np.repeat([getattr(impedance, name) for impedance in _BOTH], 3)
    for name in ("kp", "kv", "limit")
)


@dataclass
class FreeArm:
    """The arm under its impedance when it touches nothing, without centrifugal forces.

    Attributes:
        mass_matrix: joints [7] → [7, 7], kg·m², without armature.
        hand: [3, 3], the orientation of the hand that turns are counted from.
        posture: [7], rad, that the null-space springs pull to.
        timestep: s.
    """

    mass_matrix: Callable[[np.ndarray], np.ndarray]
    hand: np.ndarray
    posture: np.ndarray
    timestep: float

    def check_dampers(self) -> None:
        """Check that the impedance, whose damping is explicit in time, is stable in the posture.

        Raises:
            ValueError: a direction of the tip in which it is not; the message names it.
        """
        _, _, jacobian = tip_motion(self.posture)
        jacobian[3:] = self.hand.T @ jacobian[3:]
        mass = self.mass_matrix(self.posture) + JOINT_ARMATURE * np.eye(7)
        mobility = np.einsum("ij,jk,ik->i", jacobian, np.linalg.inv(mass), jacobian)
        names = [f"{kind} of the tip, {axis}" for kind in ("motion", "turn") for axis in "xyz"]
        for name, damping, inertia in zip(names, _KV, 1.0 / mobility, strict=True):
            check_explicit_damper(name, damping, inertia, self.timestep)

    def path(
        self, q: np.ndarray, qd: np.ndarray, tip: np.ndarray, turn: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joint angles and velocities [steps, 7] on the way to a target.

        Jacobian and mass are those of the start: keep the way short.

        Args:
            q, qd: [7] where it starts, rad and rad/s.
            tip, turn: [3] targets, m in the world frame and rad in the frame of `hand`.
        """
        position, rotation, jacobian = tip_motion(q)
        error = np.append(tip - position, turn - rotation_vector(self.hand.T @ rotation))
        jacobian[3:] = self.hand.T @ jacobian[3:]
        mass = self.mass_matrix(q) + JOINT_ARMATURE * np.eye(7)
        # Joint damping is implicit in time, as it is in MuJoCo.
        solve = np.linalg.inv(mass + self.timestep * JOINT_DAMPING * np.eye(7))
        angles, velocities = np.empty((steps, 7)), np.empty((steps, 7))
        for index in range(steps):
            speed = jacobian @ qd
            force = np.clip(_KP * error - _KV * speed, -_LIMIT, _LIMIT)
            torque = jacobian.T @ force + NULL_SPACE_STIFFNESS * (self.posture - q)
            qd = solve @ (mass @ qd + self.timestep * torque)
            q = q + self.timestep * qd
            error = error - self.timestep * (jacobian @ qd)
            angles[index], velocities[index] = q, qd
        return angles, velocities
