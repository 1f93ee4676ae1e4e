"""Rewards and distances of Gymnasium environments as batched torch functions.

Examples for own environments: the numbers are those of the environments' documentation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_envs import terminations

__all__ = [
    "goal",
    "goal_distance",
    "hopper",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "mountain_car",
    "mountain_car_distance",
    "pusher",
    "pusher_distance",
    "reacher",
    "reacher_distance",
    "walker2d",
]


def reacher(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Reacher-v5: - |finger tip - target| - ‖torque‖²; [..., 10], [..., 2] → [...]."""
    return -reacher_distance(next_obs) - action.square().sum(dim=-1)


def reacher_distance(obs: Tensor) -> Tensor:
    """Reacher-v5: finger tip to target, m; [..., 10] → [...]."""
    return torch.linalg.vector_norm(obs[..., 8:10], dim=-1)


def pusher(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Pusher-v5: - 0.5 |object - tip| - |object - goal| - 0.1 ‖torque‖²; [..., 23], [..., 7]."""
    near = torch.linalg.vector_norm(next_obs[..., 17:20] - next_obs[..., 14:17], dim=-1)
    effort = action.square().sum(dim=-1)
    return -0.5 * near - pusher_distance(next_obs) - 0.1 * effort


def pusher_distance(obs: Tensor) -> Tensor:
    """Pusher-v5: object to goal, m; [..., 23] → [...]."""
    return torch.linalg.vector_norm(obs[..., 17:20] - obs[..., 20:23], dim=-1)


def inverted_pendulum(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum-v5: 1 until the pole has fallen; [..., 4], [..., 1] → [...]."""
    return (~terminations.inverted_pendulum(obs, action, next_obs)).to(next_obs.dtype)


def inverted_double_pendulum(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedDoublePendulum-v5; [..., 9], [..., 1] → [...].

    10 until it has fallen, less 0.01 x² + (y − 2)² of the tip and 10⁻³ v₁² + 5 · 10⁻³ v₂² of the
    hinges' velocities, of which no more than 10 is shown.
    """
    up = ~terminations.inverted_double_pendulum(obs, action, next_obs)
    x, y = terminations.double_pendulum_tip(next_obs)
    fast = 1e-3 * next_obs[..., 6].square() + 5e-3 * next_obs[..., 7].square()
    return 10.0 * up - 0.01 * x.square() - (y - 2).square() - fast


def mountain_car(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """MountainCarContinuous-v0: 100 at the flag, − 0.1 ‖force‖²; [..., 2], [..., 1] → [...]."""
    there = terminations.mountain_car(obs, action, next_obs)
    return 100.0 * there - 0.1 * action.square().sum(dim=-1)


def mountain_car_distance(obs: Tensor) -> Tensor:
    """MountainCarContinuous-v0: how far before the flag at 0.45; [..., 2] → [...]."""
    return (0.45 - obs[..., 0]).clamp_min(0.0)


def hopper(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Hopper-v5 that shows its x (exclude_current_positions_from_observation: false): x velocity
    over the step of 8 ms, + 1 while it is healthy, − 0.001 ‖torque‖²; [..., 12], [..., 3] → [...].
    """
    healthy = ~terminations.hopper(obs, action, next_obs)
    return _forward(obs, action, next_obs) + healthy


def walker2d(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Walker2d-v5 that shows its x, as `hopper`; [..., 18], [..., 6] → [...]."""
    healthy = ~terminations.walker2d(obs, action, next_obs)
    return _forward(obs, action, next_obs) + healthy


def _forward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return (next_obs[..., 0] - obs[..., 0]) / 0.008 - 1e-3 * action.square().sum(dim=-1)


def goal(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """PandaReachDense-v3 and dense Fetch: - |achieved - desired goal|; [..., O], … → [...]."""
    return -goal_distance(next_obs)


def goal_distance(obs: Tensor) -> Tensor:
    """Environments whose goals are points: achieved to desired goal, m; [..., O] → [...]."""
    return torch.linalg.vector_norm(obs[..., 0:3] - obs[..., 3:6], dim=-1)
