"""Push a box of two glued blocks with hidden densities to a goal pose.

The arm pushes along +x (world frame, left is +y). Which way the box turns under a centred push
depends on the densities, so the tasks of a sequence contradict each other: light on the left
turns clockwise, light on the right counter-clockwise. The tip is at a height of 0.05 m, so that
the fingers touch the box and the wide palm passes above it; a palm in contact would push any box
straight and make all tasks one.
"""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.mujoco_task import MujocoTask
from hypercrl_envs.scene import OBJECT_CONTACT
from hypercrl_envs.task import Exploration

BLOCK_HALF_EXTENTS = (0.08, 0.04, 0.04)
BOX_HALF = 0.08
START = (-0.1, 0.0)
GOAL = (0.15, 0.0)
TIP_HEIGHT = 0.05
TIP_GAP = 0.04
STEP_LENGTH = 0.025
SUCCESS_DISTANCE = 0.04
WORKSPACE_LOW = (-0.28, -0.25)
WORKSPACE_HIGH = (0.15, 0.25)
DENSITY_RANGE = (100.0, 1000.0)

# Corners in the frame of the box, in the order of the observation.
_CORNERS = BOX_HALF * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], dtype=np.float64)

_GOAL_COLOUR = (0.98, 0.55, 0.08)
_SOLVED_COLOUR = (0.15, 0.80, 0.25)


class PushTask(MujocoTask):
    """Push the box 25 cm forward without turning it.

    Observation (10), m: tip → box centre (x, y), then the four corners of the box (x, y), in the
    world frame, rear right, rear left, front right, front left.

    Action (2): displacement of the tip in the control frame, 1 is 0.025 m; the target is the
    current tip plus the displacement, within a workspace box, at constant height.

    Reward: (Σ over corners (1 - tanh(10 d)) - 0.25 ‖a‖) / 4, d the distance in m to the corner's
    goal. Success: the farthest corner is within 0.04 m of its goal.
    """

    home = (START[0] - BOX_HALF - TIP_GAP, 0.0, TIP_HEIGHT)
    max_episode_steps = 60

    def __init__(
        self,
        densities: Sequence[float] = (500.0, 500.0),
        frame: float = 0.0,
        flip_y: bool = False,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera: str = "front",
    ) -> None:
        """
        Args:
            densities: of the left and the right block, kg/m³: hidden from the observation.
            frame: angle in degrees by which the control frame is turned about z, as that of an
                arm mounted the wrong way round: an action along x moves the tip along
                (cos, sin) of it.
            flip_y: mirror the control frame's y axis, before it is turned.
            render_mode, width, height, camera: see `MujocoTask`.

        Raises:
            ValueError: densities that are not two numbers within 100 to 1000 kg/m³ (heavier
                boxes cannot be pushed), or a frame that is not finite.
        """
        self.densities = _checked_densities(densities)
        if isinstance(frame, str) or not math.isfinite(frame):
            raise ValueError(f"frame must be an angle in degrees, not {frame!r}")
        if not isinstance(flip_y, bool):
            raise ValueError(f"flip_y must be true or false, not {flip_y!r}")
        self.frame, self.flip_y = float(frame), flip_y
        self.caption = self._describe()
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (10,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(render_mode, width, height, camera)
        self._box = self.model.body("box").id
        self._box_qpos = int(self.model.joint("box").qposadr[0])
        self._goal_sites = [
            index
            for index in range(self.model.nsite)
            if self.model.site(index).name.startswith("goal")
        ]
        self._control_frame = _control_frame(self.frame, self.flip_y)
        self.exploration = self._exploration()
        self._goals: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._low, self._high = np.array(WORKSPACE_LOW), np.array(WORKSPACE_HIGH)
        self._target = np.array(self.home)

    def _describe(self) -> str:
        left, right = self.densities
        caption = f"push {left:g} | {right:g} kg/m³"
        if self.frame:
            caption += f", frame {self.frame:g}°"
        return caption + (", y flipped" if self.flip_y else "")

    def _exploration(self) -> Exploration:
        """A drift toward the box, in this task's own control frame.

        Without it random data of a turned frame would never touch the box. The drift is along
        world x, a line in the control frame; at multiples of 90° its bounds are exact, at other
        angles they are those of the smallest rectangle around it.
        """
        ends = np.array([[-0.2, 0.0], [0.6, 0.0]]) @ self._control_frame
        low, high = ends.min(axis=0), ends.max(axis=0)
        return Exploration(tuple(low.tolist()), tuple(high.tolist()))

    def _build(self, spec: mujoco.MjSpec) -> None:
        contype, conaffinity = OBJECT_CONTACT
        box = spec.worldbody.add_body(name="box", pos=(*START, BOX_HALF / 2))
        box.add_freejoint(name="box")
        for name, side, density in zip(("left", "right"), (1, -1), self.densities, strict=True):
            box.add_geom(
                name=f"{name}_block",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=BLOCK_HALF_EXTENTS,
                pos=(0.0, side * BLOCK_HALF_EXTENTS[1], 0.0),
                density=density,
                rgba=_block_colour(density),
                contype=contype,
                conaffinity=conaffinity,
                friction=(1.0, 0.005, 0.0001),
            )
        _add_goal(spec)

    def _reset_simulation(self) -> None:
        x, y = np.add(START, self.np_random.uniform(-0.01, 0.01, size=2))
        yaw = self.np_random.uniform(-0.05, 0.05)
        self._place_arm(np.array([x - BOX_HALF - TIP_GAP, y, TIP_HEIGHT]))
        pose = self.data.qpos[self._box_qpos : self._box_qpos + 7]
        pose[:3] = x, y, BLOCK_HALF_EXTENTS[2]
        pose[3:] = math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)
        mujoco.mj_kinematics(self.model, self.data)

    def _advance(self, action: np.ndarray) -> None:
        self._target[:2] = self._tip[:2] + STEP_LENGTH * (self._control_frame @ action)
        np.clip(self._target[:2], self._low, self._high, out=self._target[:2])
        self._move_tip(self._target)

    def _observe(self) -> np.ndarray:
        centre = self.data.xpos[self._box, :2]
        axes = self.data.xmat[self._box].reshape(3, 3)[:2, :2]
        obs = np.empty(10, dtype=np.float32)
        obs[:2] = centre - self._tip[:2]
        obs[2:] = (centre + _CORNERS @ axes.T).ravel()
        return obs

    def _corner_distances(self, obs: Tensor) -> Tensor:
        """Distance of each corner to its goal, m: [..., 10] → [..., 4]."""
        key = (obs.device, obs.dtype)
        if key not in self._goals:
            corners = (_CORNERS + np.array(GOAL)).ravel()
            self._goals[key] = torch.tensor(corners, dtype=obs.dtype, device=obs.device)
        offset = obs[..., 2:] - self._goals[key]
        return torch.linalg.vector_norm(offset.unflatten(-1, (4, 2)), dim=-1)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        closeness = 1.0 - torch.tanh(10.0 * self._corner_distances(next_obs))
        effort = torch.linalg.vector_norm(action, dim=-1)
        return (closeness.sum(dim=-1) - 0.25 * effort) / 4.0

    def goal_distance(self, obs: Tensor) -> Tensor:
        return self._corner_distances(obs).amax(dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < SUCCESS_DISTANCE

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Push straight behind the centre of mass; stateless, and it knows the densities.

        Pushing to the left of the centre of mass turns the box clockwise, so the point of contact
        moves with the yaw and with the distance from the goal line. With friction the finger
        sticks to the box: to change the point of contact it retracts first, then slides.
        """
        corners = obs[2:].reshape(4, 2).astype(np.float64)
        centre = corners.mean(axis=0)
        forward = (corners[2:] - corners[:2]).sum(axis=0)
        forward /= np.linalg.norm(forward)
        leftward = np.array([-forward[1], forward[0]])
        gap = float(obs[:2] @ forward) - BOX_HALF
        contact = -float(obs[:2] @ leftward)

        left, right = self.densities
        mass_centre = BLOCK_HALF_EXTENTS[1] * (left - right) / (left + right)
        yaw = math.atan2(forward[1], forward[0])
        drift = centre[1] + mass_centre * leftward[1] - GOAL[1] - mass_centre
        wanted = mass_centre + 0.08 * yaw + 0.4 * drift
        aside = float(np.clip(wanted, -0.07, 0.07)) - contact

        remaining = GOAL[0] - centre[0]
        touching = gap < 0.015
        if remaining < 0.004:
            motion = np.zeros(2)
        elif abs(aside) > (0.02 if touching else 0.008):
            retreat = 0.03 - gap
            motion = retreat * forward * -1.0 + (0.0 if touching else aside) * leftward
        else:
            motion = (gap - 0.009 + remaining) * forward
        motion = motion / (0.7 * STEP_LENGTH)
        motion /= max(1.0, float(np.linalg.norm(motion)))
        return (motion @ self._control_frame).astype(np.float32)

    def _decorate(self) -> None:
        solved = bool(self.success(torch.from_numpy(self._observe())))
        self.model.site_rgba[self._goal_sites, :3] = _SOLVED_COLOUR if solved else _GOAL_COLOUR


def _checked_densities(densities: Sequence[float]) -> tuple[float, float]:
    low, high = DENSITY_RANGE
    try:
        left, right = (float(density) for density in densities)
    except (TypeError, ValueError):
        left = right = math.nan
    if not (low <= left <= high and low <= right <= high):
        raise ValueError(
            f"densities must be two numbers from {low:g} to {high:g} kg/m³, [left, right], "
            f"not {densities!r}"
        )
    return left, right


def _control_frame(degrees: float, flip_y: bool) -> np.ndarray:
    """Matrix [2, 2] from actions to the world frame: mirror y, then turn about z."""
    # Multiples of a right angle are exact: the sine of 180° shall be zero.
    cosine, sine = (
        round(value, 12)
        for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    )
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return turn @ np.diag([1.0, -1.0 if flip_y else 1.0])


def _add_goal(spec: mujoco.MjSpec) -> None:
    """A translucent square with an outline that stays visible when the box covers the square."""
    rim = 0.006
    reach = BOX_HALF + rim
    places = {
        "goal": (0.0, 0.0, BOX_HALF, BOX_HALF),
        "goal_rear": (-reach, 0.0, rim, reach + rim),
        "goal_front": (reach, 0.0, rim, reach + rim),
        "goal_right": (0.0, -reach, BOX_HALF, rim),
        "goal_left": (0.0, reach, BOX_HALF, rim),
    }
    for name, (x, y, half_x, half_y) in places.items():
        opacity = 0.35 if name == "goal" else 0.9
        spec.worldbody.add_site(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(half_x, half_y, 0.001),
            pos=(GOAL[0] + x, GOAL[1] + y, 0.001),
            rgba=(*_GOAL_COLOUR, opacity),
        )


def _block_colour(density: float) -> tuple[float, float, float, float]:
    """From pale (100 kg/m³) to dark blue (1000 kg/m³), so that a viewer sees what is hidden."""
    low, high = DENSITY_RANGE
    weight = math.log(density / low) / math.log(high / low)
    pale, dark = np.array([0.65, 0.82, 0.97]), np.array([0.05, 0.15, 0.40])
    red, green, blue = (pale + weight * (dark - pale)).tolist()
    return red, green, blue, 1.0
