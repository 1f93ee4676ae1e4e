"""MuJoCo behind the interface of `simulator.py`."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from hypercrl_envs.kinematics import quaternion_matrix, rotation_matrix, solve_tip_pose
from hypercrl_envs.mujoco_faults import forget_faults, mujoco_fault
from hypercrl_envs.mujoco_scene import TIP_SITE
from hypercrl_envs.mujoco_world import LATCH, build_model, check_dampers
from hypercrl_envs.panda import ARM_JOINTS, FINGER_JOINTS
from hypercrl_envs.rendering import make_renderer
from hypercrl_envs.simulator import (
    LATCH_PERIOD,
    PHYSICS_STEP,
    SUBSTEPS,
    ArmSimulator,
    Simulator,
)
from hypercrl_envs.world import SUCCESS_COLOUR, Shape, World, mass_properties

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_CENTRED = int(mujoco.mjtSameFrame.mjSAMEFRAME_BODY)


class MujocoSimulator(Simulator):
    """A model with its data: state and pictures, for tasks of any shape.

    Attributes:
        model, data: MuJoCo's; positions of `data` always belong to its joints.
    """

    def __init__(self, model: mujoco.MjModel, camera: str, width: int, height: int) -> None:
        self.model = model
        self.data = mujoco.MjData(model)
        self._camera, self._width, self._height = camera, width, height
        self._renderer: mujoco.Renderer | None = None

    def get_state(self) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def set_state(self, state: np.ndarray) -> None:
        size = mujoco.mj_stateSize(self.model, _STATE)
        if state.shape != (size,):
            raise ValueError(f"a state of this world has shape ({size},), this one {state.shape}")
        mujoco.mj_setState(self.model, self.data, state, _STATE)
        mujoco.mj_kinematics(self.model, self.data)
        forget_faults(self.data)

    def fault(self) -> str | None:
        return mujoco_fault(self.data)

    def render(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = make_renderer(self.model, self._width, self._height)
        # A control step leaves lights and cameras one substep behind.
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera=self._camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


class MujocoArm(MujocoSimulator, ArmSimulator):
    """The arm in MuJoCo, under the Cartesian impedance of `mujoco_scene.py`."""

    def __init__(self, world: World, camera: str, width: int, height: int) -> None:
        super().__init__(build_model(world, PHYSICS_STEP, width, height), camera, width, height)
        self.world = world
        self._hand = quaternion_matrix(world.hand)
        self._tip_site = self.model.site(TIP_SITE).id
        self._hand_frame = self.model.site("hand_frame").id
        self._bodies = {self.model.body(body).name: body for body in range(self.model.nbody)}
        joints = [self.model.joint(name) for name in ARM_JOINTS]
        fingers = [self.model.joint(name) for name in FINGER_JOINTS]
        self._arm_qpos = np.array([joint.qposadr[0] for joint in joints])
        self._finger_qpos = np.array([joint.qposadr[0] for joint in fingers])
        self._goal_sites = [self.model.site(m.name).id for m in world.markers if m.shows_success]
        self._goal_colours = self.model.site_rgba[self._goal_sites].copy()
        # The springs of the null space pull toward the posture of the task, where they do no harm.
        posture = solve_tip_pose(np.array(world.posture), np.array(world.home), self._hand)
        self.model.qpos_spring[self._arm_qpos] = posture
        check_dampers(self.model)
        if world.latch is not None:
            self._latch = self.model.equality(LATCH).id
            self._latched_hinge = int(self.model.joint(world.latch.hinge).qposadr[0])
            self._knob = int(self.model.joint(world.latch.knob).qposadr[0])

    def place(
        self,
        tip: np.ndarray,
        turn: np.ndarray,
        opening: float,
        poses: Mapping[str, tuple[np.ndarray, float]],
    ) -> None:
        mujoco.mj_resetData(self.model, self.data)
        seed = self.model.qpos_spring[self._arm_qpos]
        rotation = self._hand @ rotation_matrix(turn)
        self.data.qpos[self._arm_qpos] = solve_tip_pose(seed, tip, rotation)
        self.data.qpos[self._finger_qpos] = opening
        for name, (position, yaw) in poses.items():
            pose = self.data.joint(name).qpos
            pose[:3] = position
            pose[3:] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        self._command(tip, turn, opening)
        mujoco.mj_kinematics(self.model, self.data)

    def weigh(self, name: str, shapes: Sequence[Shape]) -> None:
        """Give a body the densities and colours of `shapes`, which are those it was built of.

        Leaves the data in the reference configuration: call it before `place` or `set_state`.

        Raises:
            ValueError: a body that was built with its centre of mass in its origin, so that MuJoCo
                left the offset out of its equations, or whose principal axes are not its own.
        """
        model, body = self.model, self.model.body(name).id
        mass, centre, inertia = mass_properties(tuple(shapes))
        moments = inertia.diagonal()
        aligned = np.allclose(inertia, np.diag(moments), atol=1e-12)
        if model.body_sameframe[body] == _CENTRED or not aligned:
            raise ValueError(f"body {name!r} cannot be weighed anew")
        model.body_mass[body] = mass
        model.body_ipos[body] = centre
        model.body_iquat[body] = 1.0, 0.0, 0.0, 0.0
        model.body_inertia[body] = moments
        for shape in shapes:
            model.geom(shape.name).rgba[:] = shape.colour
        mujoco.mj_setConst(model, self.data)

    def advance(self, tip: np.ndarray, turn: np.ndarray, opening: float) -> None:
        self._command(tip, turn, opening)
        if self.world.latch is None:
            mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        else:
            for _ in range(SUBSTEPS // LATCH_PERIOD):
                mujoco.mj_step(self.model, self.data, nstep=LATCH_PERIOD)
                self._move_latch()
        # After a step the poses of sites are those of one substep before.
        mujoco.mj_kinematics(self.model, self.data)

    def _command(self, tip: np.ndarray, turn: np.ndarray, opening: float) -> None:
        self.data.ctrl[:3] = tip
        self.data.ctrl[3:6] = turn
        self.data.ctrl[6:8] = opening

    def _move_latch(self) -> None:
        assert self.world.latch is not None
        angle, knob = self.data.qpos[self._latched_hinge], self.data.qpos[self._knob]
        self.data.eq_active[self._latch] = self.world.latch.holds(float(angle), float(knob))

    @property
    def tip(self) -> np.ndarray:
        return self.data.site_xpos[self._tip_site].copy()

    @property
    def tip_velocity(self) -> np.ndarray:
        # Not mj_objectVelocity: its inputs are those of one substep before.
        jacobian = np.zeros((3, self.model.nv))
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_jacSite(self.model, self.data, jacobian, None, self._tip_site)
        return jacobian @ self.data.qvel

    @property
    def turn(self) -> np.ndarray:
        current, reference, turn = np.empty(4), np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(current, self.data.site_xmat[self._tip_site])
        mujoco.mju_mat2Quat(reference, self.data.site_xmat[self._hand_frame])
        mujoco.mju_subQuat(turn, current, reference)
        return turn

    @property
    def opening(self) -> float:
        return float(self.data.qpos[self._finger_qpos].mean())

    def body_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        body = self._bodies[name]
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def body_velocity(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        velocity = self.data.joint(name).qvel
        rotation = self.data.body(name).xmat.reshape(3, 3)
        # A free joint turns in the frame of its body.
        return velocity[:3].copy(), rotation @ velocity[3:]

    def hinge(self, name: str) -> tuple[float, float]:
        joint = self.data.joint(name)
        return float(joint.qpos[0]), float(joint.qvel[0])

    def show_success(self, solved: bool) -> None:
        self.model.site_rgba[self._goal_sites] = self._goal_colours
        if solved:
            self.model.site_rgba[self._goal_sites, :3] = SUCCESS_COLOUR
