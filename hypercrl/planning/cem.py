"""The cross-entropy method over action sequences.

Rubinstein 1999; as model-predictive control in Chua et al. 2018 (PETS), algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor

from hypercrl.settings import choice, number
from hypercrl_kernels import Precision, elite_statistics, sample_actions

Rollout = Callable[[Tensor, Tensor], Tensor]
"""(obs [B, O], actions [B, K, H, A]) → states [B, K, H + 1, O], the start included."""

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(obs [..., O], action [..., A], next_obs [..., O]) → reward [...]."""


@dataclass
class CEMConfig:
    """Settings of the planner; standard deviations are in units of half the action range.

    `precision` is that of the model's products on CUDA: bf16, tf32x3 or ieee (see
    `hypercrl_kernels.Precision`); the CPU computes in float32.
    """

    samples: int = number(200, least=1)
    horizon: int = number(20, least=1)
    iterations: int = number(3, least=1)
    elites: int = number(20, least=1)
    std: float = number(0.7, least=0)
    min_std: float = number(0.05, least=0)
    warm_start: bool = True
    execute: str = choice("mean", "mean", "best")
    precision: str = choice("bf16", *get_args(Precision))


class CEM:
    """Plans for B robots in one call; a pure function of its arguments and the generator.

    Args:
        config: sizes of the search.
        low, high: [A] action bounds; every sample is clipped to them.

    Raises:
        ValueError: a setting that cannot work, named.
    """

    def __init__(self, config: CEMConfig, low: Tensor, high: Tensor) -> None:
        if config.elites > config.samples:
            raise ValueError(
                f"planner.elites must be at most planner.samples={config.samples}, "
                f"not {config.elites}"
            )
        self.config = config
        self.precision: Precision = cast(Precision, config.precision)
        self.low = low
        self.high = high
        half_range = (high - low) / 2
        self.std = config.std * half_range
        self.min_std = config.min_std * half_range

    def initial_mean(self, robots: int) -> Tensor:
        """[B, H, A]: the middle of the action range at every step."""
        middle = (self.high + self.low) / 2
        return middle.expand(robots, self.config.horizon, -1).clone()

    @torch.no_grad()
    def plan(
        self,
        rollout: Rollout,
        reward: Reward,
        obs: Tensor,
        mean: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Search from `mean` for the action sequence with the largest undiscounted return.

        Args:
            rollout: the model; reward: the task's batched reward.
            obs: [B, O] where the robots are.
            mean: [B, H, A] where the search starts.

        Returns:
            The action [B, A] to execute now and the mean [B, H, A] to start the next search from:
            the last elites' mean moved one step on, or the middle of the range without warm start.
        """
        config = self.config
        shape = (len(obs), config.samples, config.horizon, len(self.low))
        std = self.std.expand_as(mean).contiguous()
        best = mean
        # One draw for all iterations: one kernel where there would be one an iteration.
        draws = torch.randn(config.iterations, *shape, device=obs.device, generator=generator)
        for noise in draws:
            actions = sample_actions(mean, std, noise, self.low, self.high)
            returns = trajectory_returns(rollout(obs, actions), actions, reward)
            mean, std, best = elite_statistics(returns, actions, config.elites, self.min_std)
        first = mean[:, 0] if config.execute == "mean" else best[:, 0]
        return first, self._shifted(mean)

    def _shifted(self, mean: Tensor) -> Tensor:
        if not self.config.warm_start:
            return self.initial_mean(len(mean))
        return torch.cat([mean[:, 1:], mean[:, -1:]], dim=1)


def trajectory_returns(states: Tensor, actions: Tensor, reward: Reward) -> Tensor:
    """Sum of rewards along trajectories, in one call of the reward.

    Args:
        states: [B, K, H + 1, O]; actions: [B, K, H, A].

    Returns:
        [B, K]; −inf where the sum is not a number, so that a diverged trajectory never wins.
    """
    returns = reward(states[:, :, :-1], actions, states[:, :, 1:]).sum(-1)
    return returns.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
