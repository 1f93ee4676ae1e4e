# own_task.py
"""The arm reaches for a point beside it: reward, success and a solution of an own task."""

import math
from typing import Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs import Exploration
from hypercrl_envs.arm_task import ArmTask
from hypercrl_envs.task import PictureOptions
from hypercrl_envs.world import Camera, World

HOME = (-0.1, 0.0, 0.1)
CAMERAS = {
    "front": Camera((0.88, -0.70, 0.80), (-0.15, 0.02, 0.2)),
    "side": Camera((-0.2, -1.45, 0.6), (-0.2, 0.0, 0.27)),
    "top": Camera((0.06, 0.0, 1.05), (0.0, 0.0, 0.0)),
}


class Reach(ArmTask):
    """Bring the tip to a point that the observation does not show.

    Observation (2): where the tip is from home, m. Action (2): its displacement, ±1 is ±2.5 cm.

    Args:
        distance: of the point from home, m.
        direction: in degrees from straight ahead.
        picture: what every task takes, and hands on.
    """

    engines = ("mujoco",)
    max_episode_steps = 30

    def __init__(
        self, distance: float = 0.1, direction: float = 0.0, **picture: Unpack[PictureOptions]
    ) -> None:
        if not 0 < distance <= 0.2:
            raise ValueError(f"distance is more than 0 and at most 0.2 m, not {distance}")
        angle = math.radians(direction)
        self.goal = torch.tensor([distance * math.cos(angle), distance * math.sin(angle)])
        self.caption = f"reach {distance:g} m at {direction:g}°"
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.exploration = Exploration((-0.5, -0.5), (0.5, 0.5))
        super().__init__(**picture)

    def _world(self) -> World:
        """Nothing but the table."""
        return World((), (), CAMERAS, HOME)

    def _reset_simulation(self) -> None:
        super()._reset_simulation()
        self.simulator.place(np.array(HOME), np.zeros(3), 0.0, {})

    def _advance(self, action: np.ndarray) -> None:
        target = self.simulator.tip + 0.025 * np.array([*action, 0.0])
        self.simulator.advance(target, np.zeros(3), 0.0)

    def _observe(self) -> np.ndarray:
        return (self.simulator.tip - HOME)[:2].astype(np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """[..., 2], [..., 2], [..., 2] → [...]; the planner calls it on imagined transitions."""
        return -self.goal_distance(next_obs)

    def goal_distance(self, obs: Tensor) -> Tensor:
        return torch.linalg.vector_norm(obs - self.goal.to(obs), dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < 0.02

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        return np.clip((self.goal.numpy() - obs) / 0.05, -1.0, 1.0)
