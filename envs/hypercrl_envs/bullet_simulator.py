"""PyBullet behind the interface of `simulator.py`.

Bullet has no Cartesian impedance, and one made of torques would need tiny steps. Its joint motors
follow the path that the impedance makes in air (`servo.FreeArm`) from the pose measured at the
start of each control step, with the forces that the joints have.

A state is the start of the episode and all commands since. Bullet's contact caches cannot be saved,
but a fresh world that replays the same commands is the same, bit for bit; so `set_state` takes as
long as the episode took.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hypercrl_envs.bullet_client import BulletClient
from hypercrl_envs.bullet_world import (
    joint_index,
    link_names,
    load_body,
    load_marker,
    load_robot,
    load_table,
)
from hypercrl_envs.kinematics import (
    quaternion_matrix,
    rotation_matrix,
    rotation_vector,
    solve_tip_pose,
    tip_motion,
)
from hypercrl_envs.panda import ARM_JOINTS, FINGER_JOINTS, JOINTS
from hypercrl_envs.servo import GRIP, FreeArm
from hypercrl_envs.simulator import LATCH_PERIOD, PHYSICS_STEP, SUBSTEPS, ArmSimulator
from hypercrl_envs.world import SUCCESS_COLOUR, Hinge, World, camera_axes

SOLVER_ITERATIONS = 20
_POSITION_GAIN, _VELOCITY_GAIN = 0.2, 1.0
_LATCH_FORCE = 1000.0
_HOLDING_FORCE = 10.0  # N: a motor force is fixed for a control step, and fingers must not dangle
_COMMAND_SIZE = 7
_EFFORTS = [joint.effort for joint in JOINTS if joint.name in ARM_JOINTS]


class BulletArm(ArmSimulator):
    """The arm in PyBullet."""

    def __init__(self, world: World, camera: str, width: int, height: int) -> None:
        """
        Raises:
            ValueError: pybullet is not installed; the message says how to install it.
        """
        self._client = BulletClient()
        self.world = world
        self._hand = quaternion_matrix(world.hand)
        self._posture = solve_tip_pose(np.array(world.posture), np.array(world.home), self._hand)
        self._free_arm = FreeArm(self._mass_matrix, self._hand, self._posture, PHYSICS_STEP)
        self._camera, self._width, self._height = world.cameras[camera], width, height
        self._free = [body.name for body in world.bodies if body.hinge is None]
        self._hinges = [b.hinge for root in world.bodies for b in root.tree() if b.hinge]
        self._start, self._commands = np.zeros(0), list[np.ndarray]()
        poses = {b.name: (np.array(b.position), 0.0) for b in world.bodies if b.hinge is None}
        self.place(np.array(world.home), np.zeros(3), 0.0, poses)
        self._free_arm.check_dampers()

    def place(
        self,
        tip: np.ndarray,
        turn: np.ndarray,
        opening: float,
        poses: Mapping[str, tuple[np.ndarray, float]],
    ) -> None:
        joints = solve_tip_pose(self._posture, tip, self._hand @ rotation_matrix(turn))
        placed = [np.append(position, yaw) for position, yaw in map(poses.__getitem__, self._free)]
        self._start = np.concatenate((tip, turn, (opening,), *placed))
        self._commands = []
        self._load()
        for index, angle in zip(self._arm, joints, strict=True):
            self._client.resetJointState(self._robot, index, float(angle))
        for index in self._fingers:
            self._client.resetJointState(self._robot, index, float(opening))
        for name in self._free:
            self._place_body(name, *poses[name])
        self._set_arm(joints, np.zeros(7))
        self._set_fingers(opening)
        for hinge in self._hinges:
            self._release(hinge)
        self._move_latch()
        self._read_arm()

    def _load(self) -> None:
        """A new world: only then do equal commands have equal results."""
        client = self._client
        client.resetSimulation()
        client.setGravity(0.0, 0.0, -9.81)
        client.setPhysicsEngineParameter(
            fixedTimeStep=PHYSICS_STEP,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
        )
        load_table(client)
        self._robot = load_robot(client)
        self._arm = [joint_index(client, self._robot, name) for name in ARM_JOINTS]
        self._fingers = [joint_index(client, self._robot, name) for name in FINGER_JOINTS]
        roots = {body.name: load_body(client, body, PHYSICS_STEP) for body in self.world.bodies}
        self._links = {
            name: (number, index)
            for number in roots.values()
            for index, name in enumerate(link_names(client, number), start=-1)
        }
        self._joints = {
            hinge.name: (number, joint_index(client, number, hinge.name))
            for root in self.world.bodies
            for number in [roots[root.name]]
            for hinge in (body.hinge for body in root.tree())
            if hinge is not None
        }
        self._markers = {m.name: load_marker(client, m) for m in self.world.markers}

    def _place_body(self, name: str, position: np.ndarray, yaw: float) -> None:
        client, (number, _) = self._client, self._links[name]
        turned = client.getQuaternionFromEuler((0.0, 0.0, float(yaw)))
        # Bullet's pose of a body is that of its centre of mass and principal axes.
        inertial = client.getDynamicsInfo(number, -1)[3:5]
        pose = client.multiplyTransforms(position.tolist(), turned, *inertial)
        client.resetBasePositionAndOrientation(number, *pose)

    def advance(self, tip: np.ndarray, turn: np.ndarray, opening: float) -> None:
        self._commands.append(np.concatenate((tip, turn, (opening,))))
        self._set_fingers(opening)
        q, qd = self._q, self._qd
        for _ in range(0, SUBSTEPS, LATCH_PERIOD):
            angles, velocities = self._free_arm.path(q, qd, tip, turn, LATCH_PERIOD)
            for q, qd in zip(angles, velocities, strict=True):
                self._set_arm(q, qd)
                self._pull_springs()
                self._client.stepSimulation()
            self._move_latch()
        self._read_arm()

    def _mass_matrix(self, joints: np.ndarray) -> np.ndarray:
        """[7, 7] of the arm with closed fingers, kg·m²."""
        return np.array(self._client.calculateMassMatrix(self._robot, [*joints, 0.0, 0.0]))[:7, :7]

    def _set_arm(self, joints: np.ndarray, velocity: np.ndarray) -> None:
        self._client.setJointMotorControlArray(
            self._robot,
            self._arm,
            self._client.POSITION_CONTROL,
            targetPositions=joints.tolist(),
            targetVelocities=velocity.tolist(),
            forces=_EFFORTS,
            positionGains=[_POSITION_GAIN] * 7,
            velocityGains=[_VELOCITY_GAIN] * 7,
        )

    def _set_fingers(self, opening: float) -> None:
        for index in self._fingers:
            at = self._client.getJointState(self._robot, index)[0]
            force = float(np.clip(GRIP.kp * abs(opening - at), _HOLDING_FORCE, GRIP.limit))
            self._client.setJointMotorControl2(
                self._robot,
                index,
                self._client.POSITION_CONTROL,
                targetPosition=min(max(opening, 0.0), 0.04),
                force=force,
                positionGain=_POSITION_GAIN,
                maxVelocity=0.5,
            )

    def _pull_springs(self) -> None:
        """Springs for one physics step; their implicit part is in the joints, like all damping."""
        for hinge in self._hinges:
            if hinge.stiffness:
                number, index = self._joints[hinge.name]
                torque = -hinge.stiffness * self.hinge(hinge.name)[0]
                self._client.setJointMotorControl2(
                    number, index, self._client.TORQUE_CONTROL, force=torque
                )

    def _move_latch(self) -> None:
        latch = self.world.latch
        if latch is None:
            return
        (hinge,) = (hinge for hinge in self._hinges if hinge.name == latch.hinge)
        if not latch.holds(self.hinge(latch.hinge)[0], self.hinge(latch.knob)[0]):
            self._release(hinge)
            return
        number, index = self._joints[hinge.name]
        self._client.setJointMotorControl2(
            number, index, self._client.POSITION_CONTROL, targetPosition=0.0, force=_LATCH_FORCE
        )

    def _release(self, hinge: Hinge) -> None:
        """Let a hinge turn: Bullet's joints have motors, which here are the dry friction."""
        number, index = self._joints[hinge.name]
        self._client.setJointMotorControl2(
            number, index, self._client.VELOCITY_CONTROL, targetVelocity=0.0, force=hinge.friction
        )

    def _read_arm(self) -> None:
        states = self._client.getJointStates(self._robot, self._arm)
        self._q = np.array([state[0] for state in states])
        self._qd = np.array([state[1] for state in states])
        self._tip, rotation, jacobian = tip_motion(self._q)
        self._turn = rotation_vector(self._hand.T @ rotation)
        self._tip_velocity = jacobian[:3] @ self._qd

    def get_state(self) -> np.ndarray:
        return np.concatenate((self._start, *self._commands))

    def set_state(self, state: np.ndarray) -> None:
        start = 7 + 4 * len(self._free)
        if state.ndim != 1 or len(state) < start or (len(state) - start) % _COMMAND_SIZE:
            raise ValueError(
                f"a state of this world has {start} + {_COMMAND_SIZE} n numbers, this one "
                f"{state.shape}"
            )
        placed = state[7:start].reshape(-1, 4)
        self.place(
            state[:3],
            state[3:6],
            float(state[6]),
            {
                name: (pose[:3], float(pose[3]))
                for name, pose in zip(self._free, placed, strict=True)
            },
        )
        for command in state[start:].reshape(-1, _COMMAND_SIZE):
            self.advance(command[:3], command[3:6], float(command[6]))

    @property
    def tip(self) -> np.ndarray:
        return self._tip.copy()

    @property
    def tip_velocity(self) -> np.ndarray:
        return self._tip_velocity.copy()

    @property
    def turn(self) -> np.ndarray:
        return self._turn.copy()

    @property
    def opening(self) -> float:
        states = self._client.getJointStates(self._robot, self._fingers)
        return float(np.mean([state[0] for state in states]))

    def body_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        client, (number, index) = self._client, self._links[name]
        if index >= 0:
            state = client.getLinkState(number, index, computeForwardKinematics=1)
            position, quaternion = state[4:6]
        else:
            inertial = client.getDynamicsInfo(number, -1)[3:5]
            mass_frame = client.getBasePositionAndOrientation(number)
            back = client.invertTransform(*inertial)
            position, quaternion = client.multiplyTransforms(*mass_frame, *back)
        rotation = np.array(client.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
        return np.array(position), rotation

    def body_velocity(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        number, _ = self._links[name]
        linear, angular = map(np.array, self._client.getBaseVelocity(number))
        centre = np.array(self._client.getBasePositionAndOrientation(number)[0])
        return linear + np.cross(angular, self.body_pose(name)[0] - centre), angular

    def hinge(self, name: str) -> tuple[float, float]:
        angle, velocity, *_ = self._client.getJointState(*self._joints[name])
        return angle, velocity

    def show_success(self, solved: bool) -> None:
        for marker in self.world.markers:
            if marker.shows_success:
                colour = SUCCESS_COLOUR if solved else marker.colour[:3]
                self._client.changeVisualShape(
                    self._markers[marker.name], -1, rgbaColor=(*colour, marker.colour[3])
                )

    def render(self) -> np.ndarray:
        client, width, height = self._client, self._width, self._height
        view = client.computeViewMatrix(
            self._camera.position, self._camera.target, camera_axes(self._camera)[:, 1].tolist()
        )
        projection = client.computeProjectionMatrixFOV(45.0, width / height, 0.01, 20.0)
        picture = client.getCameraImage(
            width,
            height,
            view,
            projection,
            lightDirection=(0.4, -0.8, 1.8),
            shadow=0,
            renderer=client.ER_TINY_RENDERER,
            flags=client.ER_NO_SEGMENTATION_MASK,
        )[2]
        return np.asarray(picture, dtype=np.uint8).reshape(height, width, 4)[..., :3].copy()

    def close(self) -> None:
        """Nothing to free: pictures are drawn in main memory."""
