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
from typing import Unpack

import numpy as np

from hypercrl_envs.arm_task import SimulationOptions
from hypercrl_envs.blocks import BLOCK, BlockTask, block_colour
from hypercrl_envs.checked import is_number
from hypercrl_envs.control_frame import ControlFrame
from hypercrl_envs.drawn import LogUniform, Value
from hypercrl_envs.mujoco_simulator import MujocoArm
from hypercrl_envs.world import Shape

DENSITY_RANGE = (100.0, 1000.0)
FRICTION_RANGE = (0.3, 1.5)
LARGEST_START_YAW = 0.7

_WANTED = (
    "two numbers from {:g} to {:g} kg/m³, [left, right], or ranges [low, high] in their place"
).format(*DENSITY_RANGE)


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
        densities: Sequence[Value] = (500.0, 500.0),
        told: bool = False,
        frame: Value = 0.0,
        flip_y: bool = False,
        start_yaw: float = BlockTask.start_yaw,
        friction: float = 1.0,
        **simulation: Unpack[SimulationOptions],
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
            friction: coefficient between the box and what it touches, 0.3 to 1.5: hidden.
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: densities that are not two numbers, or ranges, within 100 to 1000 kg/m³
                (heavier boxes cannot be pushed), ranges of them in another engine than MuJoCo, a
                frame that is neither finite nor a range, or a start_yaw beyond 0.7 rad, at which a
                corner would touch the tip.
        """
        self._densities = LogUniform("densities", densities, DENSITY_RANGE, _WANTED, count=2)
        self._frame = ControlFrame(frame, flip_y)
        self.drawn = self._densities, self._frame
        if not isinstance(told, bool):
            raise ValueError(f"told must be true or false, not {told!r}")
        largest = LARGEST_START_YAW
        if not (is_number(start_yaw) and 0 <= start_yaw <= largest):
            raise ValueError(f"start_yaw must be from 0 to {largest} rad, not {start_yaw!r}")
        low, high = FRICTION_RANGE
        if not (is_number(friction) and low <= friction <= high):
            raise ValueError(f"friction must be from {low:g} to {high:g}, not {friction!r}")
        self.told, self.start_yaw, self.friction = told, start_yaw, float(friction)
        # A fixed frame is no news to an observer.
        self._told = self.drawn if self._frame.varies else (self._densities,)
        self.observation_size = 10 + (sum(part.told().size for part in self._told) if told else 0)
        self.caption = self._describe()
        # Unequal where they can be, so that the centre of mass is not built into the origin.
        (left, _), (heaviest, right) = self._densities.low, self._densities.high
        self.densities = float(left if left != right else heaviest), float(right)
        self._densities.values = np.array(self.densities)
        self._apply_drawn()
        # Random data of a turned frame without a drift toward the box would never touch it. Drawn
        # densities show in long pushes alone: there the drift is stronger.
        ahead, aside = ((0.3, 0.8), 0.1) if self._densities.varies else ((-0.2, 0.6), 0.0)
        self.exploration = self._frame.drift(ahead, aside)
        super().__init__(**simulation)
        if self._densities.varies and self.engine != "mujoco":
            raise ValueError(f"ranges of densities need engine 'mujoco', not {self.engine!r}")

    def _describe(self) -> str:
        caption = f"push {self._densities.text()} kg/m³" + (", told" if self.told else "")
        caption += self._frame.caption()
        if self.start_yaw != BlockTask.start_yaw:
            caption += f", turned by up to {math.degrees(self.start_yaw):.0f}°"
        if self.friction != 1.0:
            caption += f", friction {self.friction:g}"
        return caption

    def _block_shapes(self) -> tuple[Shape, ...]:
        size = (self.half, self.half / 2, self.half_height)
        names, places = ("left_block", "right_block"), (size[1], -size[1])
        colours = (block_colour(rho, DENSITY_RANGE) for rho in self.densities)
        return tuple(
            Shape(name, "box", size, rho, colour, (0.0, y, 0.0), friction=self.friction)
            for name, y, rho, colour in zip(names, places, self.densities, colours, strict=True)
        )

    def _apply_drawn(self) -> None:
        self.frame = self._frame.value
        self._control_frame = self._frame.matrix
        left, right = self._densities.values.tolist()
        if (left, right) != self.densities:
            self.densities = left, right
            assert isinstance(self.simulator, MujocoArm)
            self.simulator.weigh(BLOCK, self._block_shapes())

    def _observe(self) -> np.ndarray:
        obs = super()._observe()
        if self.told:
            obs[10:] = np.concatenate([parameter.told() for parameter in self._told])
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
