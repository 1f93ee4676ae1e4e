"""Push a block and let go of it, so that it slides to a goal out of reach.

The friction between block and table is hidden. How far a released block slides is v²/(2 μ g): each
friction wants its own speed at the release, and one that is right for one task is wrong for all
others.
"""

from __future__ import annotations

import math
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import SimulationOptions
from hypercrl_envs.blocks import BlockTask, block_colour
from hypercrl_envs.drawn import LogUniform
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import Shape

FRICTION_RANGE = (0.025, 0.2)
GRAVITY = 9.81

# Of the scripted solution: m, m/s, m, m.
_FINGER_RADIUS = 0.009
_STRIKE_SPEED = 0.65
_STRIKE_FROM = -0.06
_CLOSE_ENOUGH = 0.025
# m/s of the block at the end of a step per unit of action, and how much friction takes from it.
_SPEED_OF_ACTION, _LOST_TO_FRICTION = 0.76, 0.3


class SlideTask(BlockTask):
    """Slide the block to a goal beyond the reach of the tip.

    Observation (15): see `BlockTask`, then the velocity of the block (x, y) and of the tip (x, y),
    m/s, and the yaw rate of the block, rad/s.

    Action (2) and reward: see `BlockTask`; an action of 1 is 0.08 m. Success: the centre of the
    block is within 0.04 m of the goal, since a released block cannot be turned any more.
    """

    # Bullet's contacts are too coarse for a release at the right speed.
    engines = ("mujoco",)
    half = 0.05
    start = (-0.15, 0.0)
    goal = (0.20, 0.0)
    tip_gap = 0.012
    step_length = 0.08
    workspace = ((-0.30, -0.15), (0.05, 0.15))
    reward_length = 0.2
    observation_size = 15
    max_episode_steps = 40

    def __init__(
        self,
        friction: float = 0.07,
        **simulation: Unpack[SimulationOptions],
    ) -> None:
        """
        Args:
            friction: coefficient between block and table, 0.025 to 0.2: hidden from the
                observation.
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: a friction out of range.
        """
        low, high = FRICTION_RANGE
        wanted = f"a number, {low:g} to {high:g}"
        fixed = LogUniform("friction", friction, FRICTION_RANGE, wanted)
        if fixed.varies:
            raise ValueError(f"friction must be {wanted}, not the range {friction!r}")
        self.friction = fixed.value
        self.caption = f"slide, friction {fixed.text()}"
        self.exploration = Exploration((-0.1, -0.1), (0.7, 0.1))
        super().__init__(**simulation)

    def _block_shapes(self) -> tuple[Shape, ...]:
        size = (self.half, self.half, self.half_height)
        colour = block_colour(self.friction, FRICTION_RANGE)
        return (Shape("block", "box", size, 500.0, colour, friction=self.friction),)

    def _observe(self) -> np.ndarray:
        obs = super()._observe()
        linear, angular = self.simulator.body_velocity("box")
        obs[10:12] = linear[:2]
        obs[12:14] = self.simulator.tip_velocity[:2]
        obs[14] = angular[2]
        return obs

    def goal_distance(self, obs: Tensor) -> Tensor:
        """From the centre of the block to the goal, m: a released block cannot be turned."""
        offset = obs[..., 2:10].unflatten(-1, (4, 2)) - self._goal_corners(obs)
        return torch.linalg.vector_norm(offset.mean(dim=-2), dim=-1)

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Bring the block near, then strike at the speed that its friction wants."""
        corners = obs[2:10].reshape(4, 2).astype(np.float64)
        x = corners[:, 0].mean()
        forward = (corners[2:] - corners[:2]).sum(axis=0)
        aside = float(obs[1]) + 0.1 * math.atan2(forward[1], forward[0])
        gap = float(obs[0]) - self.half - _FINGER_RADIUS
        remaining = self.goal[0] - x
        speed = float(obs[10])
        braking = speed**2 / (2.0 * self.friction * GRAVITY)
        wanted = self._strike_speed(remaining)
        if remaining < 0.0 or (speed > 0.0 and remaining < braking + _CLOSE_ENOUGH):
            along = -0.3
        elif wanted > _STRIKE_SPEED and x < _STRIKE_FROM:
            along = 0.25
        elif gap > 0.01 and speed < 0.1:
            along = gap / self.step_length
        else:
            along = (wanted - 0.02) / (_SPEED_OF_ACTION - _LOST_TO_FRICTION * self.friction)
        return np.clip([along, aside / self.step_length], -1.0, 1.0).astype(np.float32)

    def _strike_speed(self, remaining: float) -> float:
        """Speed v at the end of a step after which the block slides through the rest of the way.

        v² = 2 μ g (remaining - t v), where the block moves by t v during the step.
        """
        pull = self.friction * GRAVITY
        return math.sqrt((pull * 0.07) ** 2 + 2.0 * pull * max(0.0, remaining)) - pull * 0.07
