# own_reward.py
"""A pendulum of Gymnasium's that is to hang still, or to stand, as rewards of our own say."""

import torch
from torch import Tensor


def hang(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """[..., 3], [..., 1], [..., 3] → [...]; an observation is cos θ, sin θ and θ' (rad/s)."""
    return -next_obs[..., 0] - 0.01 * next_obs[..., 2].square() - 0.001 * action.square().sum(-1)


def stand(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The same for a pendulum that stands: θ is 0."""
    return next_obs[..., 0] - 0.01 * next_obs[..., 2].square() - 0.001 * action.square().sum(-1)


def from_standing(obs: Tensor) -> Tensor:
    """[..., 3] → [...]: the way of the tip, 1 m from the axis, to where it stands, in m."""
    return torch.atan2(obs[..., 1], obs[..., 0]).abs()
