"""A mass that is pushed in the plane, by motors of which some are connected the wrong way round.

The double integrator of the Actuator Inversion Benchmark (Benad et al., "Dynamics-aligned shared
hypernetworks for zero-shot actuator inversion", 2026, arXiv:2602.06550).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.checked import is_number
from hypercrl_envs.closed_form import BODY_COLOUR, ClosedFormTask, Disc, goal_colour
from hypercrl_envs.drawn import Choice
from hypercrl_envs.names import known_name
from hypercrl_envs.task import Exploration, PictureOptions

AXES = ("x", "y")
PERIOD = 0.1
EFFORT_WEIGHT = 0.1
SOLVED_WITHIN = 0.1
TURNS = np.array([(1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0)])
"""Signs of both motors, of which an episode may draw one pair."""
START = 0.8, 1.0
"""Least and largest |x| and |y| at the start: a corner."""


class DoubleIntegratorTask(ClosedFormTask):
    """Come to the origin and stay there.

    Observation (4): position x, y and velocity x, y; within ±1 each.

    Action (2): force F along x and y, turned round where the motor is reversed.

    Dynamics: p ← p + dt v, v ← v + dt (F − friction v) / mass from the same v, dt = 0.1 s; both are
    then cut off at ±1.

    Reward: − |p|² − 0.1 |F|². Success: |p| < 0.1, the goal distance.
    """

    max_episode_steps = 100
    goal_unit = ""

    def __init__(
        self,
        reversed_axes: Sequence[str] = (),
        mass: float = 1.0,
        friction: float = 0.0,
        drawn: bool = False,
        **picture: Unpack[PictureOptions],
    ) -> None:
        """
        Args:
            reversed_axes: those of `AXES` whose motor pushes the other way; hidden.
            mass: 0.1 to 2, hidden.
            friction: viscous, 0 to 2, hidden.
            drawn: every episode draws which motors are reversed, in place of `reversed_axes`.
            picture: see `Task`; there is one camera.

        Raises:
            ValueError: an unknown axis, a mass or friction out of its range, a `drawn` that is no
                truth value, or reversed axes beside it.
        """
        super().__init__(**picture)
        backward = [known_name(name, AXES, "axis") for name in reversed_axes]
        given = is_number(mass) and is_number(friction)
        if not (given and 0.1 <= mass <= 2.0 and 0.0 <= friction <= 2.0):
            raise ValueError(
                f"mass must be 0.1 to 2 and friction 0 to 2, not {mass!r} and {friction!r}"
            )
        if not isinstance(drawn, bool) or (drawn and backward):
            raise ValueError(
                f"drawn must be true or false, and true alone: not {drawn!r} with reversed_axes "
                f"{backward}"
            )
        self.mass, self.friction = float(mass), float(friction)
        self._turns = np.where(np.isin(AXES, backward), -1.0, 1.0)
        self._reversal = Choice("reversal", len(TURNS) if drawn else 1)
        self.caption = "double integrator"
        if backward:
            self.caption += f", reversed {' '.join(backward)}"
        if drawn:
            self.caption += ", reversals drawn"
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.exploration = Exploration((0.0, 0.0), (0.0, 0.0))
        self._state = np.zeros(4)

    def _reset_simulation(self) -> None:
        self._reversal.draw(self.np_random)
        self._turn_motors()
        distance = self.np_random.uniform(*START, size=2)
        side = self.np_random.choice((-1.0, 1.0), size=2)
        self._state = np.concatenate((side * distance, np.zeros(2)))

    def _turn_motors(self) -> None:
        if self._reversal.varies:
            self._turns = TURNS[int(self._reversal.value)]

    def _get_physics(self) -> np.ndarray:
        return np.append(super()._get_physics(), self._reversal.state())

    def _set_physics(self, physics: np.ndarray) -> None:
        physics, reversal = self._reversal.split(physics)
        super()._set_physics(physics)
        self._reversal.values = reversal
        self._turn_motors()

    def _advance(self, action: np.ndarray) -> None:
        position, velocity = self._state[:2], self._state[2:]
        force = self._turns * action
        acceleration = (force - self.friction * velocity) / self.mass
        moved = np.concatenate((position + PERIOD * velocity, velocity + PERIOD * acceleration))
        self._state = moved.clip(-1.0, 1.0)

    def _observe(self) -> np.ndarray:
        return self._state.astype(np.float32)

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        effort = action.square().sum(dim=-1)
        return -next_obs[..., :2].square().sum(dim=-1) - EFFORT_WEIGHT * effort

    def goal_distance(self, obs: Tensor) -> Tensor:
        return torch.linalg.vector_norm(obs[..., :2], dim=-1)

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < SOLVED_WITHIN

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """A spring and a damper, critically damped."""
        force = self.mass * (-2.25 * obs[:2] - 3.0 * obs[2:])
        return (self._turns * force).clip(-1.0, 1.0).astype(np.float32)

    def _discs(self) -> list[Disc]:
        solved = bool(self.success(torch.from_numpy(self._observe())))
        x, y = (0.9 * self._state[:2]).tolist()
        return [
            (0.0, 0.0, 0.9 * SOLVED_WITHIN, goal_colour(solved)),
            (x, y, 0.05, BODY_COLOUR),
        ]
