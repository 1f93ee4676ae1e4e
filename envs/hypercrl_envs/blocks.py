"""What pushing and sliding a block over the table have in common.

The arm moves its closed fingers in a plane above the table; a block shall end in a marked square.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import ArmTask, SimulationOptions
from hypercrl_envs.world import Body, Camera, Colour, Marker, Shape, World

BLOCK = "box"


_GOAL_COLOUR = (0.98, 0.55, 0.08)
_NO_TURN = np.zeros(3)
_CAMERAS = {
    "front": Camera((0.88, -0.70, 0.80), (-0.15, 0.02, 0.2)),
    "side": Camera((-0.2, -1.45, 0.6), (-0.2, 0.0, 0.27)),
    "top": Camera((0.06, 0.0, 1.05), (0.0, 0.0, 0.0)),
}


class BlockTask(ArmTask):
    """Move a square block to a goal pose with the finger tips.

    Observation, m, world frame: tip → centre of the block (x, y), then its four corners (x, y):
    rear right, rear left, front right, front left; then what a subclass adds.

    Action (2): displacement of the tip, 1 is `step_length`; the target is the current tip plus the
    displacement, within `workspace`, at constant height.

    Reward: (Σ over corners (1 - tanh(d / `reward_length`)) - 0.25 ‖a‖) / 4, d the distance to the
    corner's goal. Success: the farthest corner is within `success_distance` of its goal.

    Attributes:
        half, half_height: half extents of the block, m.
        start, goal: centre of the block (x, y), m.
        start_yaw: largest angle, either way, by which the block is turned at first, rad.
        tip_height: at which the fingers touch the block and the palm passes above it, m.
        tip_gap: between tip and block at the start, m.
        workspace: lowest and highest (x, y) of tip targets, m.
    """

    half: ClassVar[float]
    half_height: ClassVar[float] = 0.04
    start: ClassVar[tuple[float, float]]
    goal: ClassVar[tuple[float, float]]
    start_yaw: float = 0.05
    tip_height: ClassVar[float] = 0.05
    tip_gap: ClassVar[float] = 0.04
    step_length: ClassVar[float]
    workspace: ClassVar[tuple[tuple[float, float], tuple[float, float]]]
    reward_length: ClassVar[float]
    success_distance: ClassVar[float] = 0.04
    observation_size: int = 10
    max_episode_steps = 60

    def __init__(self, **simulation: Unpack[SimulationOptions]) -> None:
        """See `SimulatedTask`; subclasses set `caption` before."""
        size = self.observation_size
        self.observation_space = gymnasium.spaces.Box(-50.0, 50.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(**simulation)
        # In the frame of the block, in the order of the observation.
        self._corners = self.half * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float64)
        self._goals: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._low, self._high = (np.array(corner) for corner in self.workspace)

    @abstractmethod
    def _block_shapes(self) -> tuple[Shape, ...]:
        """What the block is made of, in its own frame."""

    def _world(self) -> World:
        block = Body(BLOCK, (*self.start, self.half_height), self._block_shapes())
        return World(
            bodies=(block,),
            markers=_goal_markers(self.goal, self.half),
            cameras=_CAMERAS,
            home=(self.start[0] - self.half - self.tip_gap, self.start[1], self.tip_height),
        )

    def _reset_simulation(self) -> None:
        super()._reset_simulation()
        x, y = np.add(self.start, self.np_random.uniform(-0.01, 0.01, size=2))
        yaw = self.np_random.uniform(-self.start_yaw, self.start_yaw)
        tip = np.array([x - self.half - self.tip_gap, y, self.tip_height])
        pose = (np.array([x, y, self.half_height]), float(yaw))
        self.simulator.place(tip, _NO_TURN, 0.0, {BLOCK: pose})

    def _displacement(self, action: np.ndarray) -> np.ndarray:
        """Displacement [2] of the tip, m, world frame."""
        return self.step_length * action

    def _advance(self, action: np.ndarray) -> None:
        target = self.simulator.tip
        target[:2] = np.clip(target[:2] + self._displacement(action), self._low, self._high)
        target[2] = self.tip_height
        self.simulator.advance(target, _NO_TURN, 0.0)

    def _observe(self) -> np.ndarray:
        position, rotation = self.simulator.body_pose(BLOCK)
        centre, axes = position[:2], rotation[:2, :2]
        obs = np.empty(self.observation_size, dtype=np.float32)
        obs[:2] = centre - self.simulator.tip[:2]
        obs[2:10] = (centre + self._corners @ axes.T).ravel()
        return obs

    def _corner_distances(self, obs: Tensor) -> Tensor:
        """Distance of each corner to its goal, m: [..., O] → [..., 4]."""
        offset = obs[..., 2:10].unflatten(-1, (4, 2)) - self._goal_corners(obs)
        return _length(offset)

    def _goal_corners(self, obs: Tensor) -> Tensor:
        """[4, 2], m, like `obs` in device and type."""
        key = (obs.device, obs.dtype)
        if key not in self._goals:
            corners = self._corners + np.array(self.goal)
            self._goals[key] = torch.tensor(corners, dtype=obs.dtype, device=obs.device)
        return self._goals[key]

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        closeness = 1.0 - torch.tanh(self._corner_distances(next_obs) / self.reward_length)
        effort = _length(action)
        return (closeness.sum(dim=-1) - 0.25 * effort) / 4.0

    def goal_distance(self, obs: Tensor) -> Tensor:
        return self._corner_distances(obs).amax(dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < self.success_distance


def _length(vector: Tensor) -> Tensor:
    """[..., 2] → [...]. On a CPU a norm over so short a dimension takes five times as long."""
    x, y = vector.unbind(-1)
    return torch.addcmul(x * x, y, y).sqrt()


def _goal_markers(goal: tuple[float, float], half: float) -> tuple[Marker, ...]:
    """A translucent square with an outline that stays visible when the block covers the square."""
    rim = 0.006
    reach = half + rim
    places = {
        "goal": (0.0, 0.0, half, half),
        "goal_rear": (-reach, 0.0, rim, reach + rim),
        "goal_front": (reach, 0.0, rim, reach + rim),
        "goal_right": (0.0, -reach, half, rim),
        "goal_left": (0.0, reach, half, rim),
    }
    return tuple(
        Marker(
            name,
            (half_x, half_y, 0.001),
            (goal[0] + x, goal[1] + y, 0.001),
            (*_GOAL_COLOUR, 0.35 if name == "goal" else 0.9),
            shows_success=True,
        )
        for name, (x, y, half_x, half_y) in places.items()
    )


def block_colour(value: float, limits: tuple[float, float]) -> Colour:
    """From pale to dark blue, by the logarithm of a value: a viewer sees what is hidden."""
    low, high = limits
    weight = math.log(value / low) / math.log(high / low)
    pale, dark = np.array([0.65, 0.82, 0.97]), np.array([0.05, 0.15, 0.40])
    red, green, blue = (pale + weight * (dark - pale)).tolist()
    return red, green, blue, 1.0
