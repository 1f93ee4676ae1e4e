"""Exploration noise: correlated in time, biased per episode."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.base.saved import same_kind
from hypercrl.base.settings import number
from hypercrl_envs import Task


@dataclass
class ExplorationConfig:
    """Noise; standard deviations in units of half the action range."""

    correlation: float = number(
        0.8, least=0, most=0.999, help="ρ of the noise from one step to the next"
    )
    random_std: float = number(0.8, least=0, help="standard deviation in random steps")
    planned_std: float = number(0.25, least=0, help="standard deviation beside planned actions")


class CorrelatedNoise:
    """First-order autoregressive noise x ← ρ x + √(1 − ρ²) ε, of unit variance per dimension.

    White noise averages out before the tip reaches the box; correlated noise travels.

    Args:
        robots: N that act at once, each with noise of its own.
        size: dimensions A.
        correlation: ρ in [0, 1).
        bias_low, bias_high: [A] range of the constant added during one episode of random actions.
        generator: CPU generator of all draws.
    """

    def __init__(
        self,
        robots: int,
        size: int,
        correlation: float,
        bias_low: Tensor,
        bias_high: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.correlation = correlation
        self.bias_low = bias_low
        self.bias_high = bias_high
        self.generator = generator
        self.value = torch.zeros(robots, size)
        self.bias = torch.zeros(robots, size)

    def reset(self, robot: int) -> None:
        """A new episode: draw x from its stationary distribution and a new bias."""
        size = self.value[robot].shape
        self.value[robot] = torch.randn(size, generator=self.generator)
        spread = torch.rand(size, generator=self.generator)
        self.bias[robot] = self.bias_low + (self.bias_high - self.bias_low) * spread

    def step(self) -> Tensor:
        """The next x, [N, A]."""
        fresh = torch.randn(self.value.shape, generator=self.generator)
        keep = self.correlation
        self.value = keep * self.value + sqrt(1 - keep * keep) * fresh
        return self.value

    def random_action(self, std: float) -> Tensor:
        """[N, A] bias plus std · x, to act at random with."""
        return self.bias + std * self.step()

    def state(self) -> dict[str, Any]:
        """Where the process stands (the generator is kept elsewhere)."""
        return {"value": self.value, "bias": self.bias}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such a process.
        """
        self.value = same_kind("value", state["value"], self.value)
        self.bias = same_kind("bias", state["bias"], self.bias)


def random_episode(env: Task, config: ExplorationConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Observations [T + 1, O] and actions [T, A] of one episode that depends on the seed alone.

    T is `max_episode_steps`, or less where the episode ends before.
    """
    noise = make_noise(env, config, 1, torch.Generator().manual_seed(seed))
    noise.reset(0)
    observations, actions = [env.reset(seed=seed)[0]], []
    over = False
    while not over:
        action = noise.random_action(config.random_std)[0].clamp(-1, 1)
        obs, _, terminated, truncated, _ = env.step(action.numpy())
        observations.append(obs)
        actions.append(action)
        over = terminated or truncated
    return torch.from_numpy(np.stack(observations)), torch.stack(actions)


def make_noise(
    env: Task, config: ExplorationConfig, robots: int, generator: torch.Generator
) -> CorrelatedNoise:
    """Exploration noise of so many robots in a task, from that task's own bias range."""
    low, high = (
        torch.tensor(b, dtype=torch.float32)
        for b in (env.exploration.bias_low, env.exploration.bias_high)
    )
    return CorrelatedNoise(robots, len(low), config.correlation, low, high, generator)
