"""When Gymnasium's own environments end their episodes, as batched torch functions.

Each is of (obs [..., O], action [..., A], next_obs [..., O]) → bool [...], in the environment's own
units and with the thresholds of its version 5 (MountainCarContinuous: 0). What is not a number or
not finite ends an episode, as it does in Gymnasium.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "ant",
    "hopper",
    "humanoid",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "mountain_car",
    "never",
    "walker2d",
]


def never(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """No episode ends: nothing is to be learned of it where the reward is learned."""
    return torch.zeros_like(next_obs[..., 0], dtype=torch.bool)


def hopper(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Hopper-v5: torso not above 0.7 m, tilted by 0.2 rad, or a number beyond ±100; O = 11 or 12.

    Counted from the end, so that a leading x position (see `gym_rewards.hopper`) changes nothing.
    Gymnasium looks at velocities beyond ±10 that it does not show; none has been seen to reach 100.
    """
    height, pitch, state = next_obs[..., -11], next_obs[..., -10], next_obs[..., -10:]
    upright = (height > 0.7) & (height < torch.inf) & (pitch.abs() < 0.2)
    return ~(upright & (state.abs() < 100).all(-1))


def walker2d(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Walker2d-v5: torso out of 0.8 to 2 m, or tilted by 1 rad; O = 17, or 18 with x in front."""
    height, pitch = next_obs[..., -17], next_obs[..., -16]
    return ~((height > 0.8) & (height < 2.0) & (pitch.abs() < 1.0))


def ant(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Ant-v5: torso out of 0.2 to 1 m; x and y not observed."""
    height = next_obs[..., 0]
    finite = next_obs.isfinite().all(-1)
    return ~((height >= 0.2) & (height <= 1.0) & finite)


def humanoid(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """Humanoid-v5: torso out of 1 to 2 m; x and y not observed."""
    height = next_obs[..., 0]
    return ~((height > 1.0) & (height < 2.0))


def inverted_pendulum(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """InvertedPendulum-v5: pole tilted by more than 0.2 rad; O = 4."""
    return ~((next_obs[..., 1].abs() <= 0.2) & next_obs.isfinite().all(-1))


def inverted_double_pendulum(
    obs: Tensor,  # noqa: ARG001
    action: Tensor,  # noqa: ARG001
    next_obs: Tensor,
) -> Tensor:
    """InvertedDoublePendulum-v5: tip of the second pole not above 1 m; O = 9."""
    return ~(double_pendulum_tip(next_obs)[1] > 1.0)


def double_pendulum_tip(obs: Tensor) -> tuple[Tensor, Tensor]:
    """x and height of the tip of two poles of 0.6 m, m: InvertedDoublePendulum-v5, O = 9."""
    sine, sine_2, cosine, cosine_2 = obs[..., 1:5].unbind(-1)
    x = obs[..., 0] + 0.6 * (sine + sine * cosine_2 + cosine * sine_2)
    return x, 0.6 * (cosine + cosine * cosine_2 - sine * sine_2)


def mountain_car(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG001
    """MountainCarContinuous-v0: at the flag, 0.45, and not rolling back; O = 2."""
    return (next_obs[..., 0] >= 0.45) & (next_obs[..., 1] >= 0)
