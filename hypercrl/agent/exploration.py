"""Exploration noise: correlated in time, biased per episode; and bursts of exploration."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.base.saved import same_kind
from hypercrl.base.settings import choice, number
from hypercrl_envs import Task


@dataclass
class ExplorationConfig:
    """Noise; standard deviations in units of half the action range."""

    correlation: float = number(
        0.8, least=0, most=0.999, help="ρ of the noise from one step to the next"
    )
    random_std: float = number(0.8, least=0, help="standard deviation in random steps")
    planned_std: float = number(0.25, least=0, help="standard deviation beside planned actions")
    burst_share: float = number(
        0.0, least=0, most=0.5, help="share of the planned steps that explore, a burst at a time"
    )
    burst_steps: int = number(10, least=1, only_with=("burst_share",), help="steps of a burst")
    kind: str = choice(
        "random",
        "random",
        "disagreement",
        help="how a burst explores: at random, or by a plan for what an ensemble disagrees about",
    )


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
        self.value[robot] = torch.randn(self.value[robot].shape, generator=self.generator)
        self.draw_bias(robot)

    def step(self) -> Tensor:
        """The next x, [N, A]."""
        fresh = torch.randn(self.value.shape, generator=self.generator)
        keep = self.correlation
        self.value = keep * self.value + sqrt(1 - keep * keep) * fresh
        return self.value

    def draw_bias(self, robot: int) -> None:
        """A new bias of this robot's random actions."""
        spread = torch.rand(self.bias[robot].shape, generator=self.generator)
        self.bias[robot] = self.bias_low + (self.bias_high - self.bias_low) * spread

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


class Bursts:
    """Stretches of exploration in between steps planned for the task, each robot's on its own.

    A plan that has come as far as its model can tell stays there, and so does the data: after a
    push a box rests for most of the episode, and what a second one would do is never seen. A burst
    leads away, and the plans that follow it back. Random actions that last are Dabney, Ostrovski
    and Barreto's, "Temporally-extended ε-greedy exploration", ICLR 2021, there one action repeated.

    A planned step is followed by a burst of L steps with the probability p = s / (L (1 - s)), for
    which L p / (1 + L p), the share of steps in bursts, is s.

    Args:
        config: s and L; with s = 0 nothing is drawn.
        noise: whose random actions they are, with a bias of its own for every burst.

    Attributes:
        left: [N], steps that the bursts go on for, the next one included.
    """

    def __init__(self, config: ExplorationConfig, noise: CorrelatedNoise) -> None:
        share, self.steps = config.burst_share, config.burst_steps
        self.probability = share / (self.steps * (1 - share))
        self.std = config.random_std
        self.noise = noise
        self.left = torch.zeros(len(noise.value), dtype=torch.int64)

    def reset(self, robot: int) -> None:
        """A new episode, which begins with planned actions."""
        self.left[robot] = 0

    @property
    def going(self) -> Tensor:
        """[N], whose next step is one of a burst."""
        return self.left > 0

    @property
    def fresh(self) -> Tensor:
        """[N], whose next step is the first one of a burst."""
        return self.left == self.steps

    def act(self, actions: Tensor, own: Tensor | None = None) -> Tensor:
        """The actions [N, A] of this step, given planned ones with their noise.

        Args:
            own: those in a burst; by default std · x + bias, with the x of `noise.step` that
                planned ones have too.
        """
        if not self.probability:
            return actions
        bursts = self.going
        if own is None:
            own = self.noise.bias + self.std * self.noise.value
        begins = torch.rand(len(bursts), generator=self.noise.generator) < self.probability
        for robot in (begins & ~bursts).nonzero()[:, 0].tolist():
            self.noise.draw_bias(robot)
        self.left = torch.where(bursts, self.left - 1, self.steps * begins)
        return torch.where(bursts[:, None], own, actions)

    def state(self) -> dict[str, Any]:
        """Steps that are left of the bursts."""
        return {"left": self.left}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such bursts.
        """
        left = same_kind("left", state["left"], self.left)
        if left.min() < 0 or left.max() > self.steps:
            raise ValueError(f"a burst of {self.steps} steps has {left.tolist()} left")
        self.left = left


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
