"""A task with more observations and actions than it needs, to share a model with larger ones."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from torch import Tensor, nn

from hypercrl_envs.task import Exploration, Move, Task


class PaddedTask(Task):
    """Another task whose observations end in zeros and whose last actions do nothing.

    Reward, termination, distance and success see the part that is not padding. The episode is the
    other task's: it counts the steps and draws the numbers, so that it finds itself as it is alone.
    """

    def __init__(self, task: Task, observation_size: int, action_size: int) -> None:
        """
        Args:
            task: the one to pad; it belongs to this one from now on.
            observation_size, action_size: at least as large as the task's.
        """
        self.control_rate = task.control_rate
        self.restores_at_once = task.restores_at_once
        self.cameras, self.render_modes = task.cameras, task.render_modes
        super().__init__(task.render_mode, task.width, task.height, task.camera)
        self._task = task
        (self._observations,), (self._actions,) = (
            task.observation_space.shape,
            task.action_space.shape,
        )
        more = observation_size - self._observations
        space = task.observation_space
        low, high = (np.pad(bound, (0, more)) for bound in (space.low, space.high))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
        idle = (0.0,) * (action_size - self._actions)
        bias = task.exploration
        self.exploration = Exploration(bias.bias_low + idle, bias.bias_high + idle)
        self.max_episode_steps = task.max_episode_steps
        self.ends = task.ends
        self.caption, self.goal_unit = task.caption, task.goal_unit

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return self._task.reward(*self._without_padding(obs, action, next_obs))

    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return self._task.terminated(*self._without_padding(obs, action, next_obs))

    def _ending(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[bool, bool]:
        return self._task._ending(*self._without_padding(obs, action, next_obs))

    def _without_padding(
        self, obs: Tensor, action: Tensor, next_obs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = self._observations
        return obs[..., :size], action[..., : self._actions], next_obs[..., :size]

    def goal_distance(self, obs: Tensor) -> Tensor:
        return self._task.goal_distance(obs[..., : self._observations])

    def success(self, obs: Tensor) -> Tensor:
        return self._task.success(obs[..., : self._observations])

    def observed(self, obs: Tensor, reward: Tensor, terminated: Tensor) -> Tensor:
        """See `Task.observed`; what ends in the other task's padding is of this one already."""
        own = self._task.observed(obs, reward, terminated)
        more = self.observation_space.shape[0] - self._observations
        return nn.functional.pad(own, (0, more)) if own.shape[-1] == self._observations else own

    def figures(self, obs: Tensor) -> dict[str, Tensor]:
        return self._task.figures(obs[..., : self._observations])

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        action = self._task.scripted_action(obs[: self._observations])
        return np.pad(action, (0, self.action_space.shape[0] - self._actions))

    @property
    def np_random(self) -> np.random.Generator:
        """The padded task's."""
        return self._task.np_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._task.np_random = value

    @property
    def observation(self) -> np.ndarray | None:
        """See `Task.observation`."""
        obs = self._task.observation
        return None if obs is None else self._with_padding(obs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `Task.reset`."""
        obs, info = self._task.reset(seed=seed, options=options)
        return self._with_padding(obs), info

    def move(self, action: np.ndarray) -> Move:
        """See `Task.move`."""
        moved = self._task.move(self._checked(action)[: self._actions])
        return moved._replace(obs=self._with_padding(moved.obs))

    def info(self) -> dict[str, Any]:
        """See `Task.info`."""
        return self._task.info()

    def get_state(self) -> dict[str, Any]:
        """See `Task.get_state`."""
        return self._task.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Task.set_state`."""
        self._task.set_state(state)

    def _with_padding(self, obs: np.ndarray) -> np.ndarray:
        return np.pad(obs, (0, self.observation_space.shape[0] - self._observations))

    def _reset_simulation(self) -> None:
        self._task._reset_simulation()

    def _advance(self, action: np.ndarray) -> None:
        self._task._advance(action[: self._actions])

    def _observe(self) -> np.ndarray:
        return self._with_padding(self._task._observe())

    def _simulation_fault(self) -> str | None:
        return self._task._simulation_fault()

    def _get_physics(self) -> np.ndarray:
        return self._task._get_physics()

    def _set_physics(self, physics: np.ndarray) -> None:
        self._task._set_physics(physics)

    def render(self) -> np.ndarray | None:
        """See the padded task."""
        return self._task.render()

    def close(self) -> None:
        """Close the padded task."""
        self._task.close()
