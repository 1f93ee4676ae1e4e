"""Open a door whose handle is pulled, or turned one way or the other and then pulled.

Which way the handle turns, and on which side the door is hinged, is not observed: the tasks of a
sequence want opposite motions from the same start. Where several handles or turns are given, one
is drawn for every episode.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Unpack

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.arm_task import ArmTask, SimulationOptions
from hypercrl_envs.door_world import (
    HAND_FORWARD,
    HINGE,
    HOME,
    KNOB,
    OPEN_ANGLE,
    RADIUS,
    UNLATCH_ANGLE,
    door_world,
    grip_point,
)
from hypercrl_envs.drawn import Choice
from hypercrl_envs.kinematics import quaternion_matrix
from hypercrl_envs.names import known_name
from hypercrl_envs.simulator import ArmSimulator
from hypercrl_envs.task import Exploration
from hypercrl_envs.world import World

HANDLES = ("pull", "lever", "round")
STEP_LENGTH = 0.025
STEP_ANGLE = 0.15

_HAND = quaternion_matrix(HAND_FORWARD)
_REACH = np.array([(-0.36, -0.22, -0.15), (0.03, 0.22, 0.15)]) + HOME
_TURNS = np.array([1.4, 0.4, 0.4])
# Of a finger: an action of -1 presses with the whole force that the grip has, 1 opens fully.
_GRIP_CENTRE, _GRIP_SPAN = 0.0045, 0.0355
_OPEN = 0.04
# Of the scripted solution: the fingers have closed on the handle below this opening, m.
_GRIPPED = {"pull": 0.012, "lever": 0.012, "round": 0.03}


class DoorTask(ArmTask):
    """Open the door by more than 0.3 rad.

    Observation (14): tip minus where the closed handle is gripped (3, m, world frame); tip minus
    the grip point of the handle, which moves with door and lever (3, m); opening of the fingers
    (m); turn of the hand about world x, y, z (3, rad); angle of the knob and of the hinge (rad);
    velocity of the hinge and of the knob (rad/s). A task with `told` adds this episode's handle, a
    one in its place in `HANDLES` among zeros, and its turn, 0 of a bar (18).

    Action (7): displacement of the tip from where it is (1 is 0.025 m), turn of the hand about
    world x, y, z from where it is (1 is 0.15 rad), grip (1 opens, -1 presses with 70 N a finger).

    Reward: 50 hinge + 20 min(knob, 0.6) - d - log(d² + 0.005) - 5, with d the distance from tip to
    grip point in m; the knob counts in the way in which it turns, and not for a pull bar. Success:
    the hinge is beyond 0.3 rad.

    Attributes:
        handle, turn: of this episode's door.
    """

    max_episode_steps = 75

    def __init__(
        self,
        handle: str | Sequence[str] = "pull",
        turn: int | Sequence[int] = 1,
        mirrored: bool = False,
        told: bool = False,
        **simulation: Unpack[SimulationOptions],
    ) -> None:
        """
        Args:
            handle: "pull" (a fixed bar), "lever" or "round" (a knob); hidden from the observation.
            turn: the way the handle turns, 1 or -1 about world x; hidden too. From several handles
                or turns one is drawn at every reset; a pull bar has none.
            mirrored: hinged on the right, seen from the robot, instead of the left; hidden too.
            told: add the door that was drawn to the observation.
            simulation: engine and picture, see `SimulatedTask`.

        Raises:
            ValueError: an unknown handle, a turn that is neither 1 nor -1, or a pull bar that turns
                the other way.
        """
        if not isinstance(mirrored, bool):
            raise ValueError(f"mirrored must be true or false, not {mirrored!r}")
        if not isinstance(told, bool):
            raise ValueError(f"told must be true or false, not {told!r}")
        self.mirrored, self.told = mirrored, told
        self._doors = _doors(handle, turn)
        self._door = Choice("door", len(self._doors))
        self.drawn = (self._door,)
        self._turns = {turn for handle, turn in self._doors if handle != "pull"}
        self.caption = self._describe()
        size = 14 + (len(HANDLES) + 1 if told else 0)
        self.observation_space = gymnasium.spaces.Box(-50.0, 50.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
        # Random data shall close the fingers around the handle more often than not.
        self.exploration = Exploration(
            (-0.2,) + (0.0,) * 5 + (-1.0,), (0.2,) + (0.0,) * 5 + (-0.2,)
        )
        super().__init__(**simulation)
        others = (door_world(*door, mirrored) for door in self._doors[1:])
        self._arms = [self._arm, *map(self._make_arm, others)]
        self._apply_drawn()

    def _describe(self) -> str:
        signs = {1: " +", -1: " −"}
        names = (h if h == "pull" else h + signs[turn] for h, turn in self._doors)
        caption = f"door {' or '.join(names)}" + (", mirrored" if self.mirrored else "")
        return caption + (", told" if self.told else "")

    def _world(self) -> World:
        return door_world(*self._doors[0], self.mirrored)

    @property
    def simulator(self) -> ArmSimulator:
        """The arm in front of this episode's door."""
        return self._arm

    def _apply_drawn(self) -> None:
        door = int(self._door.value)
        self._arm = self._arms[door]
        self.handle, self.turn = self._doors[door]
        self._grip_body, point = grip_point(self.handle, self.mirrored)
        self._grip_point = np.array(point)

    def close(self) -> None:
        """See `SimulatedTask.close`, for all doors."""
        super().close()
        for arm in self._arms:
            arm.close()

    def _reset_simulation(self) -> None:
        super()._reset_simulation()
        offset = self.np_random.uniform((-0.02, -0.01, -0.01), (0.0, 0.01, 0.01))
        self.simulator.place(np.add(HOME, offset), np.zeros(3), _OPEN, {})

    def _advance(self, action: np.ndarray) -> None:
        arm = self.simulator
        tip = np.clip(arm.tip + STEP_LENGTH * action[:3], *_REACH)
        turn = np.clip(_HAND @ arm.turn + STEP_ANGLE * action[3:6], -_TURNS, _TURNS)
        arm.advance(tip, turn @ _HAND, _GRIP_CENTRE + _GRIP_SPAN * float(action[6]))

    def _observe(self) -> np.ndarray:
        arm = self.simulator
        position, rotation = arm.body_pose(self._grip_body)
        knob, knob_velocity = (0.0, 0.0) if self.handle == "pull" else arm.hinge(KNOB)
        hinge, hinge_velocity = arm.hinge(HINGE)
        obs = np.empty(self.observation_space.shape, dtype=np.float32)
        obs[:3] = arm.tip - HOME
        obs[3:6] = arm.tip - (position + rotation @ self._grip_point)
        obs[6] = arm.opening
        obs[7:10] = _HAND @ arm.turn
        obs[10:14] = knob, hinge, hinge_velocity, knob_velocity
        if self.told:
            obs[14:17] = [self.handle == name for name in HANDLES]
            obs[17] = 0 if self.handle == "pull" else self.turn
        return obs

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        square = next_obs[..., 3:6].square().sum(dim=-1)
        near = -torch.sqrt(square + 1e-12) - torch.log(square + 5e-3) - 5.0
        opened = 50.0 * next_obs[..., 11]
        if not self._turns:
            return opened + near
        # The same for every episode: a knob turns one way only, and the knob of a bar stands still.
        knob = next_obs[..., 10]
        turned = knob.abs() if len(self._turns) > 1 else next(iter(self._turns)) * knob
        # Beyond the unlatching angle more turning is worth nothing, or it is all that is learned.
        return opened + 20.0 * turned.clamp(max=UNLATCH_ANGLE) + near

    def goal_distance(self, obs: Tensor) -> Tensor:
        """What is left of the arc of the handle, m."""
        return RADIUS * (OPEN_ANGLE - obs[..., 11]).clamp(min=0.0)

    def success(self, obs: Tensor) -> Tensor:
        return obs[..., 11] > OPEN_ANGLE

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Reach, grip, turn, pull; the phase follows from the observation."""
        tip_error = -obs[3:6].astype(np.float64)
        opening, knob, hinge = (float(obs[index]) for index in (6, 10, 11))
        gripped = _GRIPPED[self.handle]
        side = -1.0 if self.mirrored else 1.0
        arc = self._along_the_door(obs)
        action = np.zeros(7)
        action[6] = -1.0
        turned = self.turn * knob
        closed = self.handle != "pull" and hinge < 0.01 and turned < UNLATCH_ANGLE + 0.15
        if hinge > OPEN_ANGLE + (0.02 if opening > gripped else 0.1):
            # Done: let go, and draw back.
            action[6] = 1.0
            if opening > gripped and np.linalg.norm(tip_error) < 0.1:
                action[:3] = arc
        elif opening > gripped:
            # Reach with open fingers, then close them.
            action[:3] = tip_error / STEP_LENGTH
            if np.linalg.norm(tip_error) > 0.006:
                action[6] = 1.0
        elif closed:
            action[3] = self.turn
            action[:3] = tip_error / STEP_LENGTH
            if self.handle == "lever":
                action[:3] += self._along_the_lever(knob)
        else:
            # Along the arc, staying on the handle and turning with the door.
            aside = tip_error - (tip_error @ arc) * arc
            action[:3] = 0.7 * arc + aside / STEP_LENGTH
            action[4:6] = np.array([-obs[8], -side * hinge - obs[9]]) / STEP_ANGLE
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _along_the_door(self, obs: np.ndarray) -> np.ndarray:
        """Direction [3] in which the grip point moves while the door opens."""
        # A bar is where all closed handles are gripped; the grip point stands out from the panel.
        _, closed = grip_point("pull", self.mirrored)
        x, y, _ = np.array(closed) + obs[:3] - obs[3:6]
        side = -1.0 if self.mirrored else 1.0
        return side * np.array([y, -x, 0.0]) / math.hypot(x, y)

    def _along_the_lever(self, knob: float) -> np.ndarray:
        """Motion [3] of the grip point while the lever turns on, at most 1."""
        side = -1.0 if self.mirrored else 1.0
        return self.turn * side * np.array([0.0, -math.sin(knob), math.cos(knob)])


def _doors(handle: str | Sequence[str], turn: int | Sequence[int]) -> tuple[tuple[str, int], ...]:
    """The (handle, turn) that an episode may have, a pull bar once."""
    handles = [handle] if isinstance(handle, str) else list(handle)
    turns = [turn] if isinstance(turn, int) else list(turn)
    for name in handles:
        known_name(name, HANDLES, "handle")
    for way in turns:
        if way not in (1, -1) or isinstance(way, bool):
            raise ValueError(f"turn must be 1 or -1, not {way!r}")
    if not handles or not turns:
        raise ValueError("a door needs at least one handle and one turn")
    if handles == ["pull"] and turns != [1]:
        raise ValueError("a pull bar does not turn: leave turn out")
    doors = [(h, 1 if h == "pull" else int(t)) for h, t in itertools.product(handles, turns)]
    return tuple(dict.fromkeys(doors))
