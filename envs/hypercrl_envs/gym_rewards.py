"""Rewards and distances of Gymnasium environments as batched torch functions.

Examples for own environments: the numbers are those of the environments' documentation.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def goal(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """PandaReachDense-v3 and dense Fetch: - |achieved - desired goal|; [..., O], … → [...]."""
    return -goal_distance(next_obs)


def goal_distance(obs: Tensor) -> Tensor:
    """Environments whose goals are points: achieved to desired goal, m; [..., O] → [...]."""
    return torch.linalg.vector_norm(obs[..., 0:3] - obs[..., 3:6], dim=-1)
