"""Episodes of one task in several robots at once, planned for in one call."""

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.agent.agent import Agent
from hypercrl_envs import Fleet

Figures = Callable[[Tensor], dict[str, Tensor]]
"""`Task.figures`."""


class Episodes:
    """Episodes of one task, played side by side: one plan for all, simulators of a fleet.

    Robots whose episode has ended stay in the batch and stand still; nobody looks at them.

    Args:
        agent: plans for all of them.
        fleet: that the robots belong to.
        robots: one for each episode.
        seeds: of their start states.
        figures: the task's.
    """

    def __init__(
        self,
        agent: Agent,
        fleet: Fleet,
        robots: Sequence[int],
        seeds: Sequence[int],
        figures: Figures = lambda _: {},
    ) -> None:
        self.agent = agent
        self.fleet = fleet
        self.robots = robots
        self.returns = np.zeros(len(robots))
        self.infos: list[dict[str, Any]] = [{} for _ in robots]
        self.going = list(range(len(robots)))
        self.lengths = [0 for _ in robots]
        self._figures_of = figures
        self._figures: dict[str, list[np.ndarray]] = {}
        agent.reset()
        self._results = fleet.start(robots, [methodcaller("reset", seed=seed) for seed in seeds])
        self._obs = np.zeros(0)
        self._actions: Tensor | None = None
        self._planned: Callable[[], Tensor] | None = None

    def plan(self) -> None:
        """Take in where the robots are, and begin to plan for them unless all have ended."""
        if self._actions is None:
            self._obs = np.stack([obs for obs, _ in self._results()])
        else:
            self._take_in(self._actions)
        if self.going:
            self._planned = self.agent.begin_act(torch.from_numpy(self._obs))

    def move(self) -> None:
        """Wait for the plan, and begin a step of the robots."""
        assert self._planned is not None
        actions, self._planned = self._planned(), None
        robots = [self.robots[e] for e in self.going]
        self._results = self.fleet.step(robots, actions.numpy()[self.going])
        self._actions = actions

    def _take_in(self, actions: Tensor) -> None:
        before, ended = torch.from_numpy(self._obs.copy()), []
        for e, (obs, reward, terminated, truncated, info) in zip(
            self.going, self._results(), strict=True
        ):
            self._obs[e] = obs
            self.returns[e] += reward
            self.lengths[e] += 1
            if terminated or truncated:
                self.infos[e] = info
                ended.append(e)
        after = torch.from_numpy(self._obs)
        for name, values in self._figures_of(after).items():
            self._figures.setdefault(name, []).append(values.numpy().copy())
        self.agent.observe(before, actions, after)
        self.going = [e for e in self.going if e not in ended]

    def means(self) -> tuple[float, float, float]:
        """Return, and share of success and goal distance at the last step."""
        return (
            float(self.returns.mean()),
            float(np.mean([info["success"] for info in self.infos])),
            float(np.mean([info["goal_distance"] for info in self.infos])),
        )

    def figures(self) -> dict[str, float]:
        """Of each figure the mean over episodes of its mean over the second half of the steps."""
        found = {}
        for name, steps in self._figures.items():
            each = zip(np.stack(steps, axis=1), self.lengths, strict=True)
            found[name] = float(np.mean([own[n // 2 : n].mean() for own, n in each]))
        return found
