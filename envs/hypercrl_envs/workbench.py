"""A bench with a button, a drawer, a lever, a block and a puck, of which a task wants one thing.

World, start states, observation and actions are the same in all tasks, and so are the dynamics: a
model that is right for one is right for every other. What differs is the reward, which is no part
of the observation. Wołczyk et al. (NeurIPS 2021) and ContinualBench (Liu et al., ICML 2025) ask
for such sequences: what was learned need not be kept apart, but must not be lost while other
corners of the same world are visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import ArmTask, SimulationOptions
from hypercrl_envs.checked import is_number
from hypercrl_envs.names import known_name
from hypercrl_envs.task import Exploration
from hypercrl_envs.workbench_goals import (
    BLOCK_AXIS,
    BLOCK_CENTRE,
    BUTTON_DEPTH,
    DRAWER_WAY,
    LEVER_ANGLE,
    PUCK_AXIS,
    PUCK_CENTRE,
    PUCK_VELOCITY,
    SIZE,
    TIP,
    TIP_VELOCITY,
    TO_BLOCK,
    TO_PUCK,
    Goal,
    OpenDrawer,
    PressButton,
    PushBlock,
    SlidePuck,
    TurnLever,
)
from hypercrl_envs.workbench_world import (
    BLOCK,
    BLOCK_HEIGHT,
    BLOCK_PLACE,
    BUTTON,
    DRAWER,
    HOME,
    LEVER,
    LOWEST_TIP,
    PUCK,
    PUCK_HEIGHT,
    PUCK_PLACE,
    workbench_world,
)
from hypercrl_envs.world import World

STEP_LENGTH = 0.04

_GOALS = {BUTTON: PressButton, DRAWER: OpenDrawer, LEVER: TurnLever}
_PLACED = {BLOCK: PushBlock, PUCK: SlidePuck}
_DEFAULT_PLACES = {BLOCK: (0.12, 0.0), PUCK: (-0.12, -0.34)}
_PLACES = {BLOCK: ((-0.03, -0.03), (0.12, 0.12)), PUCK: ((-0.16, -0.37), (-0.08, -0.32))}
"""Lowest and highest (x, y) of the places that can be reached, m."""

_LOW, _HIGH = np.array([-0.22, -0.22, LOWEST_TIP]), np.array([0.12, 0.25, 0.12])
_NO_TURN = np.zeros(3)


class WorkbenchTask(ArmTask):
    """Do one thing at the bench.

    Observation (23), m, m/s and rad, world frame: tip (3) and its velocity (3); tip → block (x, y),
    centre of the block (x, y), cosine and sine of its angle; tip → puck (x, y), its centre (x, y),
    velocity (x, y), cosine and sine of its angle; how far the button is pressed, the drawer
    open and the lever turned.

    Action (3): displacement of the tip from where it is, 1 is 0.04 m, within a box; the hand points
    down and its fingers are closed.

    Reward: 1 − tanh(d / ℓ) + (1 − tanh(e / 0.1)) / 4 − 0.02 ‖a‖², with d what is left to do and e
    from the tip to where it is done, m; ℓ is 0.1 m, of the puck 0.2, of the button 0.01.

    Success: d is below 4 mm at the button, 1 cm at drawer and lever, 3 cm at the block and 5 cm at
    the puck.
    """

    # Worlds in Bullet have no sliders.
    engines = ("mujoco",)
    max_episode_steps = 40

    def __init__(
        self,
        goal: str = BUTTON,
        at: Sequence[float] | None = None,
        **simulation: Unpack[SimulationOptions],
    ) -> None:
        """
        Args:
            goal: "button" (press it, and keep it pressed), "drawer" (open it), "lever" (turn it),
                "block" (push it to a place) or "puck" (slide it to a place out of reach).
            at: the place (x, y), m, of block or puck; by default (0.12, 0) and (−0.12, −0.34).
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: an unknown goal, a place for what has none, or one that cannot be reached.
        """
        self._goal = _goal(goal, at)
        self.caption = self._goal.caption
        self.observation_space = gymnasium.spaces.Box(-50.0, 50.0, (SIZE,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        # The same in every task, so that random data are of the whole bench.
        self.exploration = Exploration((-0.2, -0.4, -0.7), (0.4, 0.4, -0.1))
        super().__init__(**simulation)

    def _world(self) -> World:
        return workbench_world(self._goal.markers())

    def _reset_simulation(self) -> None:
        super()._reset_simulation()
        block, puck, tip = self.np_random.uniform(-0.01, 0.01, size=(3, 2))
        yaw = float(self.np_random.uniform(-0.1, 0.1))
        poses = {
            BLOCK: (np.array([*np.add(BLOCK_PLACE, block), BLOCK_HEIGHT / 2]), yaw),
            PUCK: (np.array([*np.add(PUCK_PLACE, puck), PUCK_HEIGHT / 2]), 0.0),
        }
        self.simulator.place(np.add(HOME, [*tip, 0.0]), _NO_TURN, 0.0, poses)

    def _advance(self, action: np.ndarray) -> None:
        arm = self.simulator
        arm.advance(np.clip(arm.tip + STEP_LENGTH * action, _LOW, _HIGH), _NO_TURN, 0.0)

    def _observe(self) -> np.ndarray:
        arm = self.simulator
        tip = arm.tip
        block, axes = arm.body_pose(BLOCK)
        puck, puck_axes = arm.body_pose(PUCK)
        obs = np.empty(SIZE, dtype=np.float32)
        obs[TIP], obs[TIP_VELOCITY] = tip, arm.tip_velocity
        obs[TO_BLOCK], obs[BLOCK_CENTRE] = (block - tip)[:2], block[:2]
        obs[BLOCK_AXIS], obs[PUCK_AXIS] = axes[:2, 0], puck_axes[:2, 0]
        obs[TO_PUCK], obs[PUCK_CENTRE] = (puck - tip)[:2], puck[:2]
        obs[PUCK_VELOCITY] = arm.body_velocity(PUCK)[0][:2]
        joints = (arm.hinge(name)[0] for name in (BUTTON, DRAWER, LEVER))
        obs[BUTTON_DEPTH], obs[DRAWER_WAY], obs[LEVER_ANGLE] = joints
        return obs

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        done = 1.0 - torch.tanh(self._goal.distance(next_obs) / self._goal.length)
        near = 1.0 - torch.tanh(self._goal.reach(next_obs) / 0.1)
        return done + 0.25 * near - 0.02 * action.square().sum(dim=-1)

    def goal_distance(self, obs: Tensor) -> Tensor:
        """What is left to do, m."""
        return self._goal.distance(obs)

    def success(self, obs: Tensor) -> Tensor:
        return self._goal.distance(obs) < self._goal.within

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """See the goal's script."""
        motion = self._goal.script(obs) / (0.65 * STEP_LENGTH)
        return (motion / max(1.0, float(np.abs(motion).max()))).astype(np.float32)


def _goal(goal: str, at: Sequence[float] | None) -> Goal:
    known_name(goal, (*_GOALS, *_PLACED), "goal")
    if goal in _GOALS:
        if at is not None:
            raise ValueError(f"the {goal} stays where it is: leave `at` out")
        return _GOALS[goal]()
    place = _DEFAULT_PLACES[goal] if at is None else at
    low, high = _PLACES[goal]
    pair = isinstance(place, Sequence) and len(place) == 2
    inside = pair and all(
        is_number(x) and a <= x <= b for x, a, b in zip(place, low, high, strict=True)
    )
    if not inside:
        raise ValueError(f"the {goal} can be brought to places from {low} to {high} m, not {at!r}")
    x, y = map(float, place)
    return _PLACED[goal]((x, y))
