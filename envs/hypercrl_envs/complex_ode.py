"""A number whose speed is a polynomial of the action: signs of coefficients turn it round.

The ODE of the Actuator Inversion Benchmark (Benad et al. 2026, arXiv:2602.06550), which is that of
Beukman et al., "Dynamics generalisation in reinforcement learning via adaptive context-aware
policies", NeurIPS 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.checked import is_number
from hypercrl_envs.closed_form import BODY_COLOUR, ClosedFormTask, Disc, goal_colour
from hypercrl_envs.task import Exploration, PictureOptions

PERIOD = 0.01
LARGEST = 20.0
COEFFICIENT_LIMIT = 10.0
LEVELS = ((2.0, 0.05), (0.5, 1 / 4), (0.2, 1 / 3), (0.1, 1 / 2), (0.05, 1.0))
"""Within |x| of so much a step pays so much."""

_GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), -1).reshape(-1, 2)


class ComplexOdeTask(ClosedFormTask):
    """Bring x to zero and keep it there.

    Observation (1): x, within ±20; an episode begins within ±1.

    Action (2): real and imaginary part of a = a₁ + i a₂.

    Dynamics: x ← x + dt Re(c₁ a + c₂ a² + …), dt = 0.01.

    Reward: 1 within 0.05 of zero, 1/2 within 0.1, 1/3 within 0.2, 1/4 within 0.5, 0.05 within 2.
    Success: |x| < 0.05; |x| is the goal distance.
    """

    max_episode_steps = 200
    goal_unit = ""

    def __init__(
        self, coefficients: Sequence[float] = (5.0, 0.0), **picture: Unpack[PictureOptions]
    ) -> None:
        """
        Args:
            coefficients: c₁, c₂, …, each within ±10, not all zero; hidden.
            picture: see `Task`; there is one camera.

        Raises:
            ValueError: other coefficients.
        """
        super().__init__(**picture)
        try:
            given = [each if is_number(each) else math.nan for each in coefficients]
            self.coefficients = np.array(given, dtype=np.float64)
        except (TypeError, OverflowError):
            self.coefficients = np.zeros(0)  # refused below
        if not self.coefficients.any() or not (abs(self.coefficients) <= COEFFICIENT_LIMIT).all():
            raise ValueError(
                f"coefficients must be numbers within ±{COEFFICIENT_LIMIT:g}, not all of them "
                f"zero, not {coefficients!r}"
            )
        self.caption = f"ODE {' | '.join(f'{c:g}' for c in self.coefficients)}"
        self.observation_space = gymnasium.spaces.Box(-LARGEST, LARGEST, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.exploration = Exploration((0.0, 0.0), (0.0, 0.0))
        self._state = np.zeros(1)

    def speed(self, action: np.ndarray) -> np.ndarray:
        """dx/dt of actions [..., 2] → [...]."""
        a = action[..., 0] + 1j * action[..., 1]
        powers = np.cumprod(np.repeat(a[..., None], len(self.coefficients), -1), -1)
        return (powers @ self.coefficients).real

    def _reset_simulation(self) -> None:
        self._state = self.np_random.uniform(-1.0, 1.0, size=1)

    def _advance(self, action: np.ndarray) -> None:
        moved = self._state + PERIOD * self.speed(action.astype(np.float64))
        self._state = moved.clip(-LARGEST, LARGEST)

    def _observe(self) -> np.ndarray:
        return self._state.astype(np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        distance = next_obs[..., 0].abs()
        paid = 0.0 * distance
        for within, worth in LEVELS:
            paid = torch.where(distance < within, worth, paid)
        return paid

    def goal_distance(self, obs: Tensor) -> Tensor:
        return obs[..., 0].abs()

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < LEVELS[-1][0]

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Of a grid of actions the one that leads nearest to zero."""
        nearest = np.abs(obs[0] + PERIOD * self.speed(_GRID)).argmin()
        return _GRID[nearest].astype(np.float32)

    def _discs(self) -> list[Disc]:
        solved = bool(self.success(torch.from_numpy(self._observe())))
        x = float(np.clip(self._state[0] / 2, -1.0, 1.0))
        return [(0.0, 0.0, 0.1, goal_colour(solved)), (x, 0.0, 0.05, BODY_COLOUR)]
