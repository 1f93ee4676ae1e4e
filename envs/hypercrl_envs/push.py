"""Push a box of two glued blocks with hidden densities to a goal pose.

The arm pushes along +x (world frame, left is +y). Which way the box turns under a centred push
depends on the densities, so the tasks of a sequence contradict each other: light on the left
turns clockwise, light on the right counter-clockwise. The tip is at a height of 0.05 m, so that
the fingers touch the box and the wide palm passes above it; a palm in contact would push any box
straight and make all tasks one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hypercrl_envs.blocks import BlockTask, block_colour
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import Shape

DENSITY_RANGE = (100.0, 1000.0)


class PushTask(BlockTask):
    """Push the box 25 cm forward without turning it.

    Observation (10), action (2), reward and success: see `BlockTask`. Actions are in the control
    frame, and 1 is 0.025 m.
    """

    half = 0.08
    start = (-0.1, 0.0)
    goal = (0.15, 0.0)
    step_length = 0.025
    workspace = ((-0.28, -0.25), (0.15, 0.25))
    reward_length = 0.1

    def __init__(
        self,
        densities: Sequence[float] = (500.0, 500.0),
        frame: float = 0.0,
        flip_y: bool = False,
        engine: str = "mujoco",
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
            engine, render_mode, width, height, camera: see `SimulatedTask`.

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
        self._control_frame = _control_frame(self.frame, self.flip_y)
        self.exploration = self._exploration()
        super().__init__(engine, render_mode, width, height, camera)

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

    def _displacement(self, action: np.ndarray) -> np.ndarray:
        return self.step_length * (self._control_frame @ action)

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
