"""What may be wanted of the workbench: each goal says how far it is, and where to take hold.

A goal is all in which tasks of the workbench differ. It sees observations alone, so that a reward
made of it can be computed for whatever a model imagines.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.workbench_world import (
    BLOCK_HALF,
    BUTTON_PLACE,
    BUTTON_TOP,
    CONTACT_HEIGHT,
    DRAWER_PLACE,
    GOAL_COLOUR,
    HANDLE_GAP,
    LEVER_GRIP,
    LEVER_HALF_WIDTH,
    LEVER_PIVOT,
    PUCK_FRICTION,
    PUCK_HALF,
    lever_grip,
)
from hypercrl_envs.world import Marker

# What is where in an observation.
TIP, TIP_VELOCITY = slice(0, 3), slice(3, 6)
TO_BLOCK, BLOCK_CENTRE, BLOCK_AXIS = slice(6, 8), slice(8, 10), slice(10, 12)
TO_PUCK, PUCK_CENTRE, PUCK_VELOCITY = slice(12, 14), slice(14, 16), slice(16, 18)
PUCK_AXIS = slice(18, 20)
BUTTON_DEPTH, DRAWER_WAY, LEVER_ANGLE = 20, 21, 22
SIZE = 23

# Of the scripted solutions: m, m, m, m/s².
_ABOVE = 0.075
_NEAR = 0.006
_FINGER_RADIUS = 0.009
_GRAVITY = 9.81


class Goal(ABC):
    """One thing to do.

    Attributes:
        caption: in words.
        length: ℓ of the reward, m: how far from the goal it still pays to come nearer.
        within: the goal distance below which it is reached, m.
    """

    caption: str
    length: ClassVar[float]
    within: ClassVar[float]

    @abstractmethod
    def distance(self, obs: Tensor) -> Tensor:
        """What is left to do, m: [..., O] → [...]."""

    @abstractmethod
    def reach(self, obs: Tensor) -> Tensor:
        """How far the tip is from where it does the work, m: [..., O] → [...]."""

    @abstractmethod
    def script(self, obs: np.ndarray) -> np.ndarray:
        """Displacement of the tip [3], m, that a solution by hand wants next."""

    def markers(self) -> tuple[Marker, ...]:
        """What shows the goal in pictures."""
        x, y = self.place
        return (Marker("goal", (0.016, 0.016, 0.001), (x, y, 0.001), (*GOAL_COLOUR, 0.9), True),)

    @property
    @abstractmethod
    def place(self) -> tuple[float, float]:
        """Where pictures show the goal (x, y), m."""


def _length(*offsets: Tensor) -> Tensor:
    """Of a vector with these components; its gradient is finite where it is zero."""
    square = torch.full_like(offsets[0], 1e-12)
    for x in offsets:
        square = square + x.square()
    return torch.sqrt(square)


def _to(obs: Tensor, x: float | Tensor, y: float | Tensor, z: float) -> Tensor:
    """Distance of the tip to a point, m: [..., O] → [...]."""
    return _length(obs[..., 0] - x, obs[..., 1] - y, obs[..., 2] - z)


def _from_above(tip: np.ndarray, x: float, y: float, z: float = CONTACT_HEIGHT) -> np.ndarray:
    """Displacement [3] of the tip to a point: high above everything, and down at its place."""
    aside = np.array([x, y]) - tip[:2]
    far = np.linalg.norm(aside) > _NEAR
    if far and tip[2] < _ABOVE - 0.01:
        return np.array([0.0, 0.0, _ABOVE - tip[2] + 0.01])
    return np.array([*aside, (_ABOVE if far else z) - tip[2]])


class PressButton(Goal):
    """Press the button by 1.2 of its 2 cm, and keep it pressed."""

    caption = "press the button"
    length = 0.01
    within = 0.004
    depth = 0.016

    def distance(self, obs: Tensor) -> Tensor:
        return (self.depth - obs[..., BUTTON_DEPTH]).clamp(min=0.0)

    def reach(self, obs: Tensor) -> Tensor:
        return _to(obs, *BUTTON_PLACE, BUTTON_TOP)

    def script(self, obs: np.ndarray) -> np.ndarray:
        return _from_above(obs[TIP], *BUTTON_PLACE, z=0.0)

    @property
    def place(self) -> tuple[float, float]:
        return BUTTON_PLACE[0] - 0.06, BUTTON_PLACE[1]


class OpenDrawer(Goal):
    """Pull the drawer open by 9 of its 14 cm."""

    caption = "open the drawer"
    length = 0.1
    within = 0.01
    way = 0.1

    def distance(self, obs: Tensor) -> Tensor:
        return (self.way - obs[..., DRAWER_WAY]).clamp(min=0.0)

    def reach(self, obs: Tensor) -> Tensor:
        x, y = DRAWER_PLACE
        return _to(obs, x + HANDLE_GAP - obs[..., DRAWER_WAY], y, CONTACT_HEIGHT)

    def script(self, obs: np.ndarray) -> np.ndarray:
        tip, way = obs[TIP], float(obs[DRAWER_WAY])
        x, y = DRAWER_PLACE[0] - way, DRAWER_PLACE[1]
        behind = 0.0 < tip[0] - x < 2.0 * HANDLE_GAP and abs(tip[1] - y) < 0.03
        if not (behind and tip[2] < CONTACT_HEIGHT + 0.01):
            return _from_above(tip, x + HANDLE_GAP, y)
        pull = min(0.0, way - self.way - 0.01)
        return np.array([3.0 * pull, y - tip[1], CONTACT_HEIGHT - tip[2]])

    @property
    def place(self) -> tuple[float, float]:
        return DRAWER_PLACE[0] - self.way, DRAWER_PLACE[1]


class TurnLever(Goal):
    """Turn the lever to the right by 0.8 of its 1.3 rad."""

    caption = "turn the lever"
    length = 0.1
    within = 0.01
    angle = 0.9

    def distance(self, obs: Tensor) -> Tensor:
        return LEVER_GRIP * (self.angle - obs[..., LEVER_ANGLE]).clamp(min=0.0)

    def reach(self, obs: Tensor) -> Tensor:
        angle = obs[..., LEVER_ANGLE]
        x = LEVER_PIVOT[0] - LEVER_GRIP * torch.cos(angle)
        y = LEVER_PIVOT[1] - LEVER_GRIP * torch.sin(angle)
        return _to(obs, x, y, CONTACT_HEIGHT)

    def script(self, obs: np.ndarray) -> np.ndarray:
        tip, angle = obs[TIP], float(obs[LEVER_ANGLE])
        grip = lever_grip(angle)
        ahead = np.array([math.sin(angle), -math.cos(angle)])
        behind = float((grip - tip[:2]) @ ahead)
        aside = grip - tip[:2] - behind * ahead
        clearance = LEVER_HALF_WIDTH + _FINGER_RADIUS
        ready = clearance - 0.01 < behind < 0.06 and np.linalg.norm(aside) < 0.03
        if not (ready and tip[2] < CONTACT_HEIGHT + 0.01):
            return _from_above(tip, *(grip - (clearance + 0.015) * ahead).tolist())
        left = self.angle + 0.05 - angle
        motion = (behind - clearance + 1.5 * LEVER_GRIP * left) * ahead * (left > 0.0) + aside
        return np.array([*motion, CONTACT_HEIGHT - tip[2]])

    @property
    def place(self) -> tuple[float, float]:
        x, y = lever_grip(self.angle + 0.1).tolist()
        return x, y


class _Moved(Goal):
    """Something on the table shall be at a place, at whatever angle it gets there.

    Args:
        at: where its centre shall be (x, y), m.
    """

    centre: ClassVar[slice]
    to: ClassVar[slice]

    def __init__(self, at: tuple[float, float]) -> None:
        self.at = at

    def distance(self, obs: Tensor) -> Tensor:
        x, y = obs[..., self.centre].unbind(-1)
        return _length(x - self.at[0], y - self.at[1])

    def reach(self, obs: Tensor) -> Tensor:
        return _length(*obs[..., self.to].unbind(-1), obs[..., 2] - CONTACT_HEIGHT)

    @property
    def place(self) -> tuple[float, float]:
        return self.at

    def _line(self, obs: np.ndarray, gap: float) -> tuple[np.ndarray, float, np.ndarray] | None:
        """The way to the goal: direction [2], length, and offset [2] of the tip from it.

        None where the tip is not behind the thing, within `gap` of it and low enough to push it.
        """
        centre, tip = obs[self.centre].astype(np.float64), obs[TIP].astype(np.float64)
        left = np.array(self.at) - centre
        way = float(np.linalg.norm(left))
        ahead = left / max(way, 1e-6)
        to = centre - tip[:2]
        behind = float(to @ ahead)
        aside = to - behind * ahead
        ready = 0.0 < behind < gap and np.linalg.norm(aside) < 0.02
        return (ahead, way, aside) if ready and tip[2] < CONTACT_HEIGHT + 0.01 else None

    def _behind(self, obs: np.ndarray, gap: float) -> np.ndarray:
        """Displacement [3] of the tip to where it can push from."""
        left = np.array(self.at) - obs[self.centre]
        ahead = left / max(float(np.linalg.norm(left)), 1e-6)
        x, y = (obs[self.centre] - gap * ahead).tolist()
        return _from_above(obs[TIP], x, y)


class PushBlock(_Moved):
    """Push the block to a place on the table."""

    length = 0.1
    within = 0.03
    centre, to = BLOCK_CENTRE, TO_BLOCK

    def __init__(self, at: tuple[float, float]) -> None:
        super().__init__(at)
        self.caption = f"push the block to {100 * at[0]:g}, {100 * at[1]:g} cm"

    def script(self, obs: np.ndarray) -> np.ndarray:
        line = self._line(obs, BLOCK_HALF + 0.045)
        left = np.array(self.at) - obs[BLOCK_CENTRE]
        if np.linalg.norm(left) < 0.012:
            return np.zeros(3)
        if line is None:
            return self._behind(obs, BLOCK_HALF + 0.028)
        ahead, way, aside = line
        behind = float(obs[TO_BLOCK] @ ahead) - BLOCK_HALF - _FINGER_RADIUS
        motion = (behind + way) * ahead + aside
        return np.array([*motion, CONTACT_HEIGHT - obs[2]])


class SlidePuck(_Moved):
    """Strike the puck so that it slides to a place out of reach, and stops there."""

    length = 0.2
    within = 0.05
    centre, to = PUCK_CENTRE, TO_PUCK
    caption = "slide the puck"

    def script(self, obs: np.ndarray) -> np.ndarray:
        velocity = obs[PUCK_VELOCITY].astype(np.float64)
        line = self._line(obs, PUCK_HALF + 0.06)
        if line is None:
            moving = np.linalg.norm(velocity) > 0.05
            return np.zeros(3) if moving else self._behind(obs, PUCK_HALF + 0.022)
        ahead, way, aside = line
        wanted = math.sqrt(2.0 * PUCK_FRICTION * _GRAVITY * max(0.0, way - 0.015))
        speed = float(velocity @ ahead)
        if speed > wanted - 0.03:
            return np.array([*(-0.02 * ahead), 0.0])
        # The tip moves 0.044 m in a step of the longest action, and so does what it strikes.
        return np.array([*(0.055 * wanted * ahead + aside), CONTACT_HEIGHT - obs[2]])
