"""Push a box of two glued blocks with hidden densities to a goal pose.

The arm pushes along +x (world frame, left is +y). Which way the box turns under a centred push
depends on the densities, so the tasks of a sequence contradict each other: light on the left
turns clockwise, light on the right counter-clockwise. The tip is at a height of 0.05 m, so that
the fingers touch the box and the wide palm passes above it; a palm in contact would push any box
straight and make all tasks one.

Densities and control frames that are given as ranges are drawn anew for every episode: then no
model without a memory can know how the box will turn, or where the arm will go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hypercrl_envs.blocks import BLOCK, BlockTask, block_colour
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import Shape

DENSITY_RANGE = (100.0, 1000.0)
LARGEST_START_YAW = 0.7

Range = tuple[float, float]


class PushTask(BlockTask):
    """Push the box 25 cm forward without turning it.

    Observation (10), action (2), reward and success: see `BlockTask`. Actions are in the control
    frame, and 1 is 0.025 m. A task with `told` adds its densities to the observation (12), as
    their logarithms from -1 (100 kg/m³) to 1 (1000 kg/m³), and cosine and sine of a drawn frame
    (14).

    Attributes:
        densities: of the left and the right block in this episode, kg/m³.
        frame: of this episode, degrees.
    """

    half = 0.08
    start = (-0.1, 0.0)
    goal = (0.15, 0.0)
    step_length = 0.025
    workspace = ((-0.28, -0.25), (0.15, 0.25))
    reward_length = 0.1

    def __init__(
        self,
        densities: Sequence[float | Sequence[float]] = (500.0, 500.0),
        told: bool = False,
        frame: float | Sequence[float] = 0.0,
        flip_y: bool = False,
        start_yaw: float = BlockTask.start_yaw,
        engine: str = "mujoco",
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera: str = "front",
    ) -> None:
        """
        Args:
            densities: of the left and the right block, kg/m³: hidden from the observation. A range
                [low, high] is drawn from at every reset, log-uniformly.
            told: add the densities to the observation, and a drawn frame.
            frame: angle in degrees by which the control frame is turned about z, as that of an
                arm mounted the wrong way round: an action along x moves the tip along
                (cos, sin) of it. A range [low, high] is drawn from at every reset, uniformly.
            flip_y: mirror the control frame's y axis, before it is turned.
            start_yaw: the box is turned by up to this angle, rad, either way, as an episode begins.
                The yaw of a box that always starts straight identifies how heavy its halves are.
            engine, render_mode, width, height, camera: see `SimulatedTask`.

        Raises:
            ValueError: densities that are not two numbers, or ranges, within 100 to 1000 kg/m³
                (heavier boxes cannot be pushed), ranges of them in another engine than MuJoCo, a
                frame that is neither finite nor a range, or a start_yaw beyond 0.7 rad, at which a
                corner would touch the tip.
        """
        self._ranges = _checked_ranges(densities)
        self._draws = any(low < high for low, high in self._ranges)
        self.densities = _unequal_ends(*self._ranges)
        if self._draws and engine != "mujoco":
            raise ValueError(f"ranges of densities need engine 'mujoco', not {engine!r}")
        if not isinstance(told, bool):
            raise ValueError(f"told must be true or false, not {told!r}")
        if not isinstance(flip_y, bool):
            raise ValueError(f"flip_y must be true or false, not {flip_y!r}")
        if not (isinstance(start_yaw, int | float) and 0 <= start_yaw <= LARGEST_START_YAW):
            raise ValueError(
                f"start_yaw must be from 0 to {LARGEST_START_YAW} rad, not {start_yaw!r}"
            )
        self.told, self.flip_y, self.start_yaw = told, flip_y, start_yaw
        self._frames = _checked_frames(frame)
        self._turns = self._frames[0] < self._frames[1]
        self.observation_size = 10 + (2 + 2 * self._turns if told else 0)
        self.caption = self._describe()
        self._turn(sum(self._frames) / 2)
        self.exploration = self._exploration()
        super().__init__(engine, render_mode, width, height, camera)

    def _describe(self) -> str:
        left, right = (
            f"{low:g}" if low == high else f"{low:g}–{high:g}" for low, high in self._ranges
        )
        caption = f"push {left} | {right} kg/m³" + (", told" if self.told else "")
        low, high = self._frames
        if low != high:
            caption += f", frame {low:g}° to {high:g}°"
        elif low:
            caption += f", frame {low:g}°"
        if self.flip_y:
            caption += ", y flipped"
        if self.start_yaw != BlockTask.start_yaw:
            caption += f", turned by up to {math.degrees(self.start_yaw):.0f}°"
        return caption

    def _exploration(self) -> Exploration:
        """A drift toward the box, in this task's own control frame.

        Without it random data of a turned frame would never touch the box. The drift is along
        world x, a line in the control frame; at multiples of 90° its bounds are exact, at other
        angles they are those of the smallest rectangle around it, and of a drawn frame those of
        the middle of its range. Drawn densities show in long pushes alone: there the drift is
        stronger, and a little to the sides.
        """
        (back, ahead), aside = ((0.3, 0.8), 0.1) if self._draws else ((-0.2, 0.6), 0.0)
        ends = np.array([(x, y) for x in (back, ahead) for y in (-aside, aside)])
        ends = ends @ self._control_frame
        low, high = ends.min(axis=0), ends.max(axis=0)
        return Exploration(tuple(low.tolist()), tuple(high.tolist()))

    def _block_shapes(self) -> tuple[Shape, ...]:
        half_y = self.half / 2
        return tuple(
            Shape(
                f"{name}_block",
                "box",
                (self.half, half_y, self.half_height),
                density,
                block_colour(density, DENSITY_RANGE),
                position=(0.0, side * half_y, 0.0),
            )
            for name, side, density in zip(("left", "right"), (1, -1), self.densities, strict=True)
        )

    def _reset_simulation(self) -> None:
        if self._draws:
            low, high = np.transpose(self._ranges)
            drawn = np.exp(self.np_random.uniform(np.log(low), np.log(high)))
            self._weigh(drawn.clip(low, high))
        if self._turns:
            self._turn(float(self.np_random.uniform(*self._frames)))
        super()._reset_simulation()

    def _turn(self, frame: float) -> None:
        self.frame = frame
        self._control_frame = _control_frame(frame, self.flip_y)

    def _weigh(self, densities: np.ndarray) -> None:
        left, right = densities.tolist()
        if (left, right) == self.densities:
            return
        self.densities = left, right
        assert isinstance(self.simulator, MujocoArm)
        self.simulator.weigh(BLOCK, self._block_shapes())

    def _get_physics(self) -> np.ndarray:
        physics = super()._get_physics()
        if self._draws:
            physics = np.append(physics, self.densities)
        return np.append(physics, self.frame) if self._turns else physics

    def _set_physics(self, physics: np.ndarray) -> None:
        if not self._turns:
            self._set_weighed_physics(physics)
            return
        low, high = self._frames
        if not low <= physics[-1] <= high:
            raise ValueError(f"a state of this task ends in its frame, not {physics[-1]}")
        self._set_weighed_physics(physics[:-1])
        self._turn(float(physics[-1]))

    def _set_weighed_physics(self, physics: np.ndarray) -> None:
        if not self._draws:
            super()._set_physics(physics)
            return
        before = self.densities
        low, high = DENSITY_RANGE
        if not ((physics[-2:] >= low) & (physics[-2:] <= high)).all():
            raise ValueError(f"a state of this task ends in two densities, not {physics[-2:]}")
        self._weigh(physics[-2:])
        try:
            super()._set_physics(physics[:-2])
        except ValueError:
            self._weigh(np.array(before))
            raise

    def _observe(self) -> np.ndarray:
        obs = super()._observe()
        if self.told:
            low, high = np.log(DENSITY_RANGE)
            obs[10:12] = 2.0 * (np.log(self.densities) - low) / (high - low) - 1.0
            if self._turns:
                angle = math.radians(self.frame)
                obs[12:] = math.cos(angle), math.sin(angle)
        return obs

    def _displacement(self, action: np.ndarray) -> np.ndarray:
        return self.step_length * (self._control_frame @ action)

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Push straight behind the centre of mass; stateless, and it knows the densities.

        Pushing to the left of the centre of mass turns the box clockwise, so the point of contact
        moves with the yaw and with the distance from the goal line. With friction the finger
        sticks to the box: to change the point of contact it retracts first, then slides.
        """
        corners = obs[2:10].reshape(4, 2).astype(np.float64)
        centre = corners.mean(axis=0)
        forward = (corners[2:] - corners[:2]).sum(axis=0)
        forward /= np.linalg.norm(forward)
        leftward = np.array([-forward[1], forward[0]])
        gap = float(obs[:2] @ forward) - self.half
        contact = -float(obs[:2] @ leftward)

        left, right = self.densities
        mass_centre = self.half / 2 * (left - right) / (left + right)
        yaw = math.atan2(forward[1], forward[0])
        drift = centre[1] + mass_centre * leftward[1] - self.goal[1] - mass_centre
        wanted = mass_centre + 0.08 * yaw + 0.4 * drift
        aside = float(np.clip(wanted, -0.07, 0.07)) - contact

        remaining = self.goal[0] - centre[0]
        touching = gap < 0.015
        if remaining < 0.004:
            motion = np.zeros(2)
        elif abs(aside) > (0.02 if touching else 0.008):
            retreat = 0.03 - gap
            motion = retreat * forward * -1.0 + (0.0 if touching else aside) * leftward
        else:
            motion = (gap - 0.009 + remaining) * forward
        motion = motion / (0.7 * self.step_length)
        motion /= max(1.0, float(np.linalg.norm(motion)))
        return (motion @ self._control_frame).astype(np.float32)


def _checked_ranges(densities: Sequence[float | Sequence[float]]) -> tuple[Range, Range]:
    """Lowest and highest density of each block."""
    least, most = DENSITY_RANGE
    try:
        left, right = (_range(density) for density in densities)
    except (TypeError, ValueError):
        left = right = math.nan, math.nan
    if not all(least <= low <= high <= most for low, high in (left, right)):
        raise ValueError(
            f"densities must be two numbers from {least:g} to {most:g} kg/m³, [left, right], or "
            f"ranges [low, high] in their place, not {densities!r}"
        )
    return left, right


def _range(value: float | Sequence[float]) -> Range:
    if isinstance(value, int | float):
        return float(value), float(value)
    if isinstance(value, str):
        raise ValueError(f"not a number: {value!r}")
    low, high = (float(end) for end in value)
    return low, high


def _checked_frames(frame: float | Sequence[float]) -> Range:
    """Lowest and highest angle."""
    try:
        low, high = _range(frame)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low <= high < math.inf:
        raise ValueError(
            f"frame must be an angle in degrees, or a range [low, high] of it, not {frame!r}"
        )
    return low, high


def _unequal_ends(left: Range, right: Range) -> tuple[float, float]:
    """Densities to build a box with: unequal where they can be, so that its centre of mass is not
    built into its origin."""
    return (left[0] if left[0] != right[1] else left[1]), right[1]


def _control_frame(degrees: float, flip_y: bool) -> np.ndarray:
    """Matrix [2, 2] from actions to the world frame: mirror y, then turn about z."""
    # Multiples of a right angle are exact: the sine of 180° shall be zero.
    cosine, sine = (
        round(value, 12)
        for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    )
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return turn @ np.diag([1.0, -1.0 if flip_y else 1.0])
