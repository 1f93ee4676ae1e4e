"""The robots that act in a task in training, some of them still in the task before."""

from collections.abc import Sequence
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.base.saved import same_type
from hypercrl_envs import Fleet
from hypercrl_envs.fleet import Call


class Robots:
    """N places, each with a robot in the task; where its boundary is blurred one in the task before
    as well, and every episode is of one of the two.

    Args:
        fleet: makes the robots.
        task: of the sequence, from 0.
        count: N.
        blurred: whether episodes may be of the task before, if there is one.
        generator: of which task an episode is of.
    """

    def __init__(
        self, fleet: Fleet, task: int, count: int, blurred: bool, generator: torch.Generator
    ) -> None:
        self.fleet = fleet
        self.generator = generator
        tasks = [task, task - 1] if blurred and task else [task]
        self._worlds = [fleet.make(each, count) for each in tasks]
        self._lingers = [False] * count

    def __len__(self) -> int:
        return len(self._lingers)

    @property
    def worlds(self) -> int:
        """Tasks that there are robots in, one or two."""
        return len(self._worlds)

    def begin(self, seeds: Sequence[Sequence[int]], lingering: float) -> list[Any]:
        """The first episode of every robot; what `Task.reset` returns of those that act.

        Args:
            seeds: [worlds][N].
            lingering: probability that an episode is of the task before.
        """
        self._draw(range(len(self)), lingering)
        firsts = [
            self._call(world, [methodcaller("reset", seed=seed) for seed in own])
            for world, own in zip(self._worlds, seeds, strict=True)
        ]
        return [firsts[lingers][place] for place, lingers in enumerate(self._lingers)]

    def begin_anew(self, places: Sequence[int], lingering: float) -> list[Any]:
        """The next episode at these places, see `begin`."""
        self._draw(places, lingering)
        return self._call(self._acting(places), [methodcaller("reset", seed=None)] * len(places))

    def step(self, actions: np.ndarray) -> list[Any]:
        """What `Fleet.step` returns at every place, [N]; actions [N, A]."""
        return self.fleet.step(self._acting(range(len(self))), actions)()

    def close(self) -> None:
        """Nothing acts in the task any more."""
        self.fleet.dismiss([robot for world in self._worlds for robot in world])

    def state(self) -> dict[str, Any]:
        """Of every robot, and who acts; the generator is kept elsewhere."""
        robots = [robot for world in self._worlds for robot in world]
        states = self._call(robots, [methodcaller("get_state")] * len(robots))
        return {"robots": states, **({"lingers": list(self._lingers)} if self.worlds > 1 else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such robots.
        """
        robots = [robot for world in self._worlds for robot in world]
        states = same_type("robots", state["robots"], list)
        if len(states) != len(robots):
            raise ValueError(f"it is of {len(states)} robots, not of {len(robots)}")
        if self.worlds > 1:
            self._lingers = same_type("lingers", state["lingers"], list[bool])
            if len(self._lingers) * self.worlds != len(robots):
                raise ValueError(f"lingers is of {len(self._lingers)} robots")
        self._call(robots, [methodcaller("set_state", one) for one in states])

    def elsewhere(self, obs: Tensor) -> list[int]:
        """Places whose robot does not observe what it did, obs [N, O], as its state was taken."""
        robots = self._acting(range(len(self)))
        seen = self._call(robots, [attrgetter("observation")] * len(robots))
        return [place for place, own in enumerate(seen) if not np.array_equal(own, obs[place])]

    def _draw(self, places: Sequence[int], lingering: float) -> None:
        if self.worlds > 1:
            drawn = torch.rand(len(places), generator=self.generator) < lingering
            for place, lingers in zip(places, drawn.tolist(), strict=True):
                self._lingers[place] = lingers

    def _acting(self, places: Sequence[int]) -> list[int]:
        return [self._worlds[self._lingers[place]][place] for place in places]

    def _call(self, robots: Sequence[int], calls: Sequence[Call]) -> list[Any]:
        return self.fleet.start(robots, calls)()
