"""What all MuJoCo tasks of the arm share: control, save and restore, rendering."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from hypercrl_envs.inverse_kinematics import solve_tip_pose
from hypercrl_envs.panda import ARM_JOINTS, READY_JOINTS
from hypercrl_envs.rendering import make_renderer
from hypercrl_envs.scene import CAMERAS, HAND_DOWN, TIP_SITE, arm_scene, compile_scene
from hypercrl_envs.task import Task

CONTROL_PERIOD = 0.1
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class MujocoTask(Task):
    """A task in the scene of `arm_scene`, controlled at 10 Hz by tip targets.

    Subclasses add objects in `_build`, called once, and use `_place_arm`, `_move_tip` and
    `_tip`.

    The physics step is 4 ms: it runs 1.4 times as many control steps per second as 2 ms, and the
    scripted solutions, the contacts of the fingers and the turning of the box are the same.

    Attributes:
        physics_step: the simulator's step, s.
        home: tip position [3], m, whose arm posture the null-space springs hold.
        model, data: MuJoCo's; positions of `data` always belong to its joints.
    """

    physics_step: ClassVar[float] = 0.004
    home: ClassVar[tuple[float, float, float]]

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera: str = "front",
    ) -> None:
        """
        Args:
            render_mode: "rgb_array" to use `render`, else None.
            width, height: of rendered pictures, in pixels.
            camera: one of `CAMERAS`.

        Raises:
            ValueError: unknown render mode or camera, or a picture without pixels.
        """
        super().__init__(render_mode)
        if camera not in CAMERAS:
            raise ValueError(f"unknown camera {camera!r}: there are {', '.join(CAMERAS)}")
        if width < 1 or height < 1:
            raise ValueError(f"width and height must be at least 1 pixel, not {width} × {height}")
        self.camera, self.width, self.height = camera, int(width), int(height)
        spec = arm_scene(self.physics_step)
        spec.visual.global_.offwidth, spec.visual.global_.offheight = self.width, self.height
        self._build(spec)
        self.model = compile_scene(spec)
        self.data = mujoco.MjData(self.model)
        self._substeps = round(CONTROL_PERIOD / self.physics_step)
        self._tip_site = self.model.site(TIP_SITE).id
        self._arm_qpos = np.array([self.model.joint(name).qposadr[0] for name in ARM_JOINTS])
        self._renderer: mujoco.Renderer | None = None
        # The springs of the null space pull toward the posture of the task, where they do no harm.
        self.data.qpos[self._arm_qpos] = READY_JOINTS
        self._solve_arm(np.array(self.home))
        self.model.qpos_spring[self._arm_qpos] = self.data.qpos[self._arm_qpos]

    def _build(self, spec: mujoco.MjSpec) -> None:
        """Add the task's objects to the scene."""
        raise NotImplementedError

    @property
    def _tip(self) -> np.ndarray:
        """Position [3] of the tip, m, world frame; a view."""
        return self.data.site_xpos[self._tip_site]

    def _place_arm(self, tip: np.ndarray) -> None:
        """Reset the simulator and put the closed, downward hand at a tip position [3], at rest."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._arm_qpos] = self.model.qpos_spring[self._arm_qpos]
        self._solve_arm(tip)
        self.data.ctrl[:3] = tip

    def _solve_arm(self, tip: np.ndarray) -> None:
        solve_tip_pose(self.model, self.data, self._tip_site, tip, np.array(HAND_DOWN))

    def _move_tip(self, target: np.ndarray) -> None:
        """One control step toward a tip target [3], m, world frame."""
        self.data.ctrl[:3] = target
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        # After a step the poses of sites are those of one substep before.
        mujoco.mj_kinematics(self.model, self.data)

    def _get_physics(self) -> np.ndarray:
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return physics

    def _set_physics(self, physics: np.ndarray) -> None:
        size = mujoco.mj_stateSize(self.model, _STATE)
        if physics.shape != (size,):
            raise ValueError(
                f"a physics state of {self.caption!r} has shape ({size},), this one {physics.shape}"
            )
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_kinematics(self.model, self.data)

    def _decorate(self) -> None:
        """Change colours or markers of `model` before a picture is drawn."""

    def render(self) -> np.ndarray:
        """A picture from `camera`: uint8 [height, width, 3].

        Raises:
            RuntimeError: the task was not made with `render_mode="rgb_array"`.
            RenderingUnavailable: this machine cannot draw; the message says what to install.
        """
        if self.render_mode != "rgb_array":
            raise RuntimeError('make the task with render_mode="rgb_array" to render it')
        if self._renderer is None:
            self._renderer = make_renderer(self.model, self.width, self.height)
        self._decorate()
        # A control step leaves lights and cameras one substep behind.
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera=self.camera)
        return self._renderer.render()

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
