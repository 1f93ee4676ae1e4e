"""Spaces of other people's environments as what an agent works with: one vector each way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hypercrl_envs import checked

ACTUATORS = "Actuators of a MuJoCo model that have no ctrlrange go from 0 to 0: give them one."


@dataclass(frozen=True)
class _Leaf:
    """A box inside an observation space: the keys that lead to it, and its name for people."""

    path: tuple[Any, ...]
    name: str
    box: spaces.Box

    def of(self, observation: Any, where: str, rows: tuple[int, ...] = ()) -> np.ndarray:
        """This part [n] of an observation; of many [*rows, n]."""
        for depth, key in enumerate(self.path):
            try:
                observation = observation[key]
            except (KeyError, IndexError, TypeError) as error:
                raise checked.TaskFault(
                    f"{where}: the observation has no {self.name!r} in it "
                    f"(key {depth + 1}): {checked.shown(observation)}."
                ) from error
        what = f"{where}: {self.name}"
        part = checked.array(observation, (*rows, *self.box.shape), what).astype(np.float64)
        return part.reshape(*rows, -1)


class VectorObservation:
    """Observations of boxes, and of dicts and tuples of them, as one vector of floats [O].

    Parts of a dict follow one another in the alphabetical order of their keys, so that the
    observations of goal environments are `achieved_goal`, `desired_goal`, `observation`; those of a
    tuple in their own order. Integers become floats of the same value.

    Attributes:
        size: O.
        low, high: [O] bounds, float64.
        parts: where each part lies in the vector; the parts of parts by names with a dot.
    """

    def __init__(self, space: gymnasium.Space, id: str) -> None:
        """
        Raises:
            ValueError: there is a space in it that is no vector, or nothing at all.
        """
        self._leaves = list(_leaves(space, (), id))
        self.parts: dict[str, slice] = {}
        self.size = 0
        for leaf in self._leaves:
            end = self.size + int(np.prod(leaf.box.shape))
            self.parts[leaf.name] = slice(self.size, end)
            self.size = end
        if not self.size:
            raise ValueError(f"{id} has no observation: its space is {space}")
        self.low, self.high = (
            np.concatenate([getattr(leaf.box, side).ravel() for leaf in self._leaves]).astype(float)
            for side in ("low", "high")
        )

    def __call__(self, observation: Any, where: str) -> np.ndarray:
        """What the environment returned, as a new vector [O], float64.

        Args:
            where: names the environment and the step.

        Raises:
            TaskFault: it is not of the space, or has a number in it that is not finite.
        """
        return np.concatenate([leaf.of(observation, where) for leaf in self._leaves])

    def rows(self, observations: Any, count: int, where: str) -> np.ndarray:
        """The same of `count` observations, whose parts are arrays [count, n], as [count, O].

        Raises:
            TaskFault: as of one.
        """
        parts = [leaf.of(observations, where, (count,)) for leaf in self._leaves]
        return np.concatenate(parts, -1)


def _leaves(space: gymnasium.Space, path: tuple[Any, ...], id: str) -> Iterator[_Leaf]:
    if isinstance(space, spaces.Dict):
        for key in sorted(space.spaces, key=str):
            yield from _leaves(space.spaces[key], (*path, key), id)
        return
    if isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, index), id)
        return
    name = ".".join(map(str, path)) or "observation"
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"{id}: {name} is {space}, and a model predicts one-dimensional boxes of numbers, or "
            "dicts of them. Register the environment with a wrapper that makes such a box of it "
            "(gymnasium.wrappers.FlattenObservation writes a choice as zeros and a one)"
        )
    if len(space.shape) > 1:
        raise ValueError(
            f"{id}: {name} is an array of shape {space.shape}, and a model predicts "
            "one-dimensional boxes of numbers, not pictures. Ask the environment for its state "
            "instead (often one of its options), or register it with a wrapper "
            "(gymnasium.wrappers.FlattenObservation for a small matrix)"
        )
    yield _Leaf(path, name, space)


class ActionRange:
    """From an agent's actions in [-1, 1] to an environment's own, in its own dtype.

    -1 and 1 become the bounds themselves, 0 the middle, and nothing becomes more than the bounds,
    however it is rounded. Where actions are integers, the nearest one is taken.

    Attributes:
        size: A.
        fixed: places of those that have one value alone.
    """

    def __init__(self, space: gymnasium.Space, id: str) -> None:
        """
        Raises:
            ValueError: not a one-dimensional box with bounds between which something can be chosen.
        """
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(
                f"{id}: its actions are {space}, and a planner searches one-dimensional boxes. "
                "Register the environment with a gymnasium.ActionWrapper that chooses by a number, "
                "or take its continuous form (often one of its options)"
            )
        if not space.shape[0]:
            raise ValueError(f"{id}: it takes no actions (0 dimensions): there is nothing to plan")
        # Integers without bounds have the ends of their type for them.
        if not space.is_bounded():
            raise ValueError(
                f"{id}: its actions have no bounds ({space}), and a planner searches between "
                "bounds. Register the environment with a gymnasium.ActionWrapper whose "
                "action_space has them"
            )
        if (space.low == space.high).all() or (space.low > space.high).any():
            raise ValueError(
                f"{id}: its actions leave nothing to choose: low is {space.low.tolist()} and high "
                f"{space.high.tolist()}. {ACTUATORS}"
            )
        (self.size,) = space.shape
        self.fixed = np.flatnonzero(space.low == space.high).tolist()
        self._space = space
        self._low, self._high = space.low.copy(), space.high.copy()
        self._id = id
        self._bounds: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, action: Tensor) -> Tensor:
        """What the environment executes under actions [..., A] in [-1, 1]; their type and device.

        Rounded to the dtype of the environment's actions first.
        """
        return self._executed(action).to(action.dtype)

    def check(self, space: gymnasium.Space) -> None:
        """See that an environment's actions, in `space` by now, are what they were.

        Raises:
            TaskFault: they are not: an agent's actions would mean something else than it learned.
        """
        same = (
            isinstance(space, spaces.Box)
            and np.array_equal(space.low, self._low)
            and np.array_equal(space.high, self._high)
        )
        if not same:
            raise checked.TaskFault(
                f"{self._id}: its actions are in {space} now, and were between "
                f"{self._low.tolist()} and {self._high.tolist()}. Keep action_space as it is, and "
                "let step do less with the same action."
            )

    def for_environment(self, action: np.ndarray) -> np.ndarray:
        """The same for one action [A], in the dtype of the environment's actions."""
        own = self._executed(torch.from_numpy(action)).numpy()
        # Ends of 64 bits are no float64: what they are rounded to may not fit into their type.
        with np.errstate(invalid="ignore"):
            exact = own.astype(self._space.dtype)
        inside = np.where(own <= self._low, self._low, exact)
        return np.where(own >= self._high, self._high, inside)

    def _executed(self, action: Tensor) -> Tensor:
        if action.device not in self._bounds:
            # Kept for later calls, which may need gradients.
            with torch.inference_mode(False):
                low, high = (
                    torch.tensor(bound.astype(np.float64), device=action.device)
                    for bound in (self._low, self._high)
                )
            self._bounds[action.device] = low, high
        low, high = self._bounds[action.device]
        # Weights of exactly 0 and 1 at the ends, and no difference of bounds, which may overflow.
        action = action.double()
        own = (low * (0.5 - 0.5 * action) + high * (0.5 + 0.5 * action)).clamp(low, high)
        dtype = np.dtype(self._space.dtype)
        # The bounds are numbers of that type: rounding to it does not leave them.
        if dtype.kind in "iub":
            return own.round()
        # What torch has not, such as float128, holds every float64.
        return own.to(getattr(torch, dtype.name, torch.float64))
