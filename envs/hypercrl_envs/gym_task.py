"""Any Gymnasium environment of boxes; its reward and end are torch functions, or learned."""

from __future__ import annotations

import inspect
import math
import re
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Unpack

import gymnasium
import numpy as np
import torch
from gymnasium.envs import registration
from torch import Tensor, nn

from hypercrl_envs import checked
from hypercrl_envs.checked import is_number
from hypercrl_envs.gym_spaces import ACTUATORS, ActionRange, VectorObservation
from hypercrl_envs.mujoco_faults import mujoco_fault
from hypercrl_envs.parameters import parameters_of
from hypercrl_envs.rendering import (
    RenderingUnavailable,
    as_picture,
    fitted,
    import_triton_first,
)
from hypercrl_envs.task import Exploration, PictureOptions, Task
from hypercrl_envs.task_functions import TaskFunction

_GYMNASIUM = Path(gymnasium.__file__).parent
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_LARGEST_SEED = 2**31
_TRIED_STEPS = 2
_STATISTICS = (
    "; and leave out wrappers that keep statistics over episodes, such as NormalizeObservation: "
    "agents scale what they observe themselves"
)
_LARGEST_OBSERVATION = 1e6
_LARGE_NUMBER = 1e4
"""From here on float32 tells apart what differs by 0.001 or more."""
_TREMBLING = 1e-12
"""Of a number: a smaller change is the rounding of float64 after some operations."""


class GymTask(Task):
    """A registered Gymnasium environment as a task.

    Observation: the environment's, dicts and tuples as one vector (`VectorObservation`). Action:
    the environment's, mapped from its bounds to [-1, 1]. Reward, and whether an episode ends: the
    given functions, called with observations and actions in the environment's own units. What
    `step` returns as terminated or truncated is what the environment says.

    Without a function the reward is learned: the observation ends in the reward that was just paid
    (0 at the start), the dynamics model predicts it like any other dimension, and the reward of an
    imagined step is what is predicted there. Chosen over a network of its own because the output
    layer's last row is such a head already, trained on the same batches; every method protects it
    from forgetting as it protects the dynamics, and planners and kernels do not know of it.

    Whether an episode ends is learned in the same way where neither has a function: one more
    number, 1 once the environment has terminated. All data begin at 0, so what is predicted of a
    step is its change, and more than half of it is an end: the mean of such a number is a
    probability, and changes do not add up along a rollout. With a reward but no termination a plan
    does not know of ends, and a warning says so at the first one.

    A state is the seed of the episode and its actions; restoring replays them, which is exact for
    every environment that its seed determines.

    Attributes:
        observation_parts: where each part of a dict or tuple lies in the observation, by its name.
    """

    goal_unit = ""
    cameras = ("front",)

    def __init__(
        self,
        id: str,
        reward: str | None = None,
        termination: str | None = None,
        distance: str | None = None,
        solved_within: float | None = None,
        options: Mapping[str, Any] | None = None,
        **picture: Unpack[PictureOptions],
    ) -> None:
        """
        Args:
            id: of the environment, such as "Reacher-v5"; "package.module:Name-v0" imports first.
            reward: "package.module:function" of (obs [..., O], action [..., A], next_obs [..., O])
                → [...], any leading dimensions, device and floating type; None: learned.
            termination: the same, → bool [...], whether the step ends the episode (see
                `hypercrl_envs.terminations`); None: learned if the reward is.
            distance: "package.module:function" of obs [..., O] → [...], how far from done; without
                it the goal distance is NaN and nothing counts as success.
            solved_within: distance below which the state counts as solved, in the same unit; to be
                given with a distance.
            options: keyword arguments of `gymnasium.make`.
            picture: see `Task`; the camera "front" is the environment's own.

        Raises:
            ValueError: an environment that cannot be made, without a length of its episodes, or
                whose spaces are no boxes with bounded actions; a function that cannot be imported;
                or one of `distance` and `solved_within` without the other.
            RenderingUnavailable: it cannot be made with `render_mode`.
        """
        super().__init__(**picture)
        self._reward = TaskFunction(reward, id) if reward is not None else None
        self._termination = (
            TaskFunction(termination, id, boolean=True) if termination is not None else None
        )
        given = {"reward": reward, "termination": termination}
        self._learns_end = "ends" in self.learned_parts(given)
        self.ends = self._learns_end or termination is not None
        self._distance = TaskFunction(distance, id) if distance is not None else None
        if solved_within is not None and distance is None:
            raise ValueError(
                f"{id}: solved_within={solved_within} has no effect without a distance: give "
                'distance: "module:function" beside it, or leave it out'
            )
        if distance is not None and solved_within is None:
            raise ValueError(
                f"{id}: what counts as success has to be said beside its distance, in the unit of "
                "that: give solved_within: 0.05 for a distance below 0.05 (which it was where it "
                "was left out), or no distance"
            )
        self.solved_within = math.nan if solved_within is None else float(solved_within)
        # Some open a renderer as they are made, asked for pictures or not.
        import_triton_first()
        env = _make(id, self.render_mode, options or {})
        # The task counts the steps itself.
        self._env = env.env if isinstance(env, gymnasium.wrappers.TimeLimit) else env
        observations = VectorObservation(env.observation_space, id)
        actions = ActionRange(env.action_space, id)
        self._vector, self._executed = observations, actions
        self.observation_parts = observations.parts
        self.max_episode_steps = _limit(env, id)
        # One picture a step, by Gymnasium's convention.
        rate = env.metadata.get("render_fps")
        self.control_rate = float(rate) if is_number(rate) and rate > 0 else Task.control_rate
        self.caption = id
        more = (0, (self._reward is None) + self._learns_end)
        low, high = (
            np.pad(bound, more, constant_values=sign * np.inf)
            .clip(-_LARGEST_OBSERVATION, _LARGEST_OBSERVATION)
            .astype(np.float32)
            for bound, sign in ((observations.low, -1), (observations.high, 1))
        )
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions.size,), np.float32)
        self.exploration = Exploration((0.0,) * actions.size, (0.0,) * actions.size)
        self._seed = 0
        self._actions: list[np.ndarray] = []
        self._raw, self._motion = np.zeros((2, observations.size))
        self._paid = 0.0
        self._says = False, False

    def _reset_simulation(self) -> None:
        self._begin(int(self.np_random.integers(_LARGEST_SEED)))

    def _begin(self, seed: int) -> None:
        self._seed, self._actions = seed, []
        where = f"{self.caption}, reset"
        with checked.calls_into(where):
            returned = self._env.reset(seed=seed)
        obs, _ = checked.reset_result(returned, where)
        self._executed.check(self._env.action_space)
        self._raw = self._vector(obs, where)
        self._motion = np.zeros_like(self._raw)
        self._paid, self._says = 0.0, (False, False)

    def _advance(self, action: np.ndarray) -> None:
        self._actions.append(action.astype(np.float64))
        where = f"{self.caption}, step {len(self._actions)} of an episode"
        with checked.calls_into(where):
            returned = self._env.step(self._executed.for_environment(action))
        obs, self._paid, *ends, _ = checked.step_result(returned, where)
        self._executed.check(self._env.action_space)
        before, self._raw = self._raw, self._vector(obs, where)
        self._motion = np.maximum(self._motion, np.abs(self._raw - before))
        self._says = ends[0], ends[1]
        if any(self._says) or len(self._actions) >= self.max_episode_steps:
            self._check_motion()
        if ends[0] and not self.ends:
            _notice_unplanned_end(self.caption)

    def _check_motion(self) -> None:
        """Warn of a number that has moved in a whole episode, in no step by what float32 tells."""
        size = np.abs(self._raw)
        # What trembles at rest, or by no more than float64 tells, is no motion.
        moves = (size > _LARGE_NUMBER) & (self._motion > _TREMBLING * size)
        lost = moves & (self._motion < np.spacing(size.astype(np.float32)))
        if lost.any():
            _notice_lost_motion(self.caption, int(np.argmax(lost)))

    def _ending(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[bool, bool]:  # noqa: ARG002
        return self._says

    def _simulation_fault(self) -> str | None:
        try:
            data = getattr(self._env.unwrapped, "data", None)
        except Exception:  # a property of that name, with a meaning of its own
            return None
        return mujoco_fault(data)

    @classmethod
    def learned_parts(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Task.learned_parts`.

        Example:
            >>> GymTask.learned_parts({"id": "Pendulum-v1"})
            ('reward', 'ends')
        """
        if parameters.get("reward") is not None:
            return ()
        return ("reward",) if parameters.get("termination") is not None else ("reward", "ends")

    def try_out(self) -> None:
        """See `Task.try_out`; also take a few steps, as nobody else has tried the environment, and
        warn of one that its seed does not determine, or with actions that do nothing."""
        # The first is of an environment just made; what is left of one episode may pass with two.
        first, _, *again = (self._tried(seed) for seed in (0, 1, 0, 0))
        super().try_out()
        if fixed := ", ".join(f"action[{place}]" for place in self._executed.fixed):
            warnings.warn(
                f"{self.caption}: the bounds of {fixed} leave nothing to choose there. {ACTUATORS}",
                stacklevel=2,
            )
        if any(not np.array_equal(first[0], each[0]) for each in again):
            warnings.warn(
                f"{self.caption} begins other episodes with the same seed: its runs cannot be "
                f"repeated. Draw from self.np_random, after super().reset(seed=seed){_STATISTICS}",
                stacklevel=2,
            )
        elif any(not np.array_equal(first, each) for each in again):
            warnings.warn(
                f"{self.caption} goes on otherwise from the same seed by the same actions, once "
                "another episode has gone before: a run that is resumed goes on otherwise than one "
                "that was not interrupted. Draw from self.np_random, and let reset set back all "
                f"that the simulator keeps (by making it anew, if need be){_STATISTICS}",
                stacklevel=2,
            )

    def _tried(self, seed: int) -> np.ndarray:
        """Observations [steps + 1, O] of an episode's first steps, by actions of which each is its
        own."""
        generator = np.random.default_rng(0)
        self._begin(seed)
        seen = [self._observe()]
        while not any(self._says) and len(seen) <= _TRIED_STEPS:
            action = generator.uniform(-1.0, 1.0, self.action_space.shape)
            where = f"{self.caption}, step {len(seen)} of an episode"
            seen.append(self._advanced(action.astype(np.float32), where))
        return np.array(seen)

    def _try_functions(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        size = self._vector.size
        obs, action, next_obs = obs[:, :size], self._executed(action), next_obs[:, :size]
        for function in (self._reward, self._termination):
            if function is not None:
                function.try_out(obs, action, next_obs)
        if self._distance is not None:
            self._distance.try_out(obs)

    def _observe(self) -> np.ndarray:
        learned = [] if self._reward else [self._paid]
        if self._learns_end:
            learned.append(float(self._says[0]))
        return np.append(self._raw, learned).astype(np.float32)

    def _get_physics(self) -> np.ndarray:
        return np.concatenate(([float(self._seed)], *self._actions))

    def _set_physics(self, physics: np.ndarray) -> None:
        size = self._executed.size
        if physics.ndim != 1 or len(physics) == 0 or (len(physics) - 1) % size:
            raise ValueError(
                f"a state of this environment has 1 + {size} n numbers, not {physics.shape}"
            )
        self._begin(int(physics[0]))
        for action in physics[1:].reshape(-1, size):
            if any(self._says):  # it is not determined by its seed
                return
            self._advance(action.astype(np.float32))

    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        if self._reward is None:
            return next_obs[..., self._vector.size]
        return self._reward(obs, self._executed(action), next_obs)

    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        if self._learns_end:
            return next_obs[..., -1] - obs[..., -1] > 0.5
        if self._termination is None:
            return super().terminated(obs, action, next_obs)
        size = self._vector.size
        return self._termination(obs[..., :size], self._executed(action), next_obs[..., :size])

    def observed(self, obs: Tensor, reward: Tensor, terminated: Tensor) -> Tensor:
        """See `Task.observed`: reward and end, where they are learned, stand behind the rest."""
        if obs.shape[-1] != self._vector.size:
            return obs
        learned = [reward] if self._reward is None else []
        learned += [terminated] if self._learns_end else []
        begun = [nn.functional.pad(each.to(obs), (1, 0))[:, None] for each in learned]
        return torch.cat([obs, *begun], -1)

    def goal_distance(self, obs: Tensor) -> Tensor:
        """What `distance` says, in its units.

        Raises:
            TaskFault: of one state, as `info` asks, no finite number: it would pass for a failure.
        """
        if self._distance is None:
            return torch.full_like(obs[..., 0], math.nan)
        distance = self._distance(obs[..., : len(self._raw)])
        if not distance.dim():
            where = f"{self.caption}, after {self._elapsed_steps} steps of an episode"
            checked.number(distance, f"{where}: distance")
        return distance

    def success(self, obs: Tensor) -> Tensor:
        return self.goal_distance(obs) < self.solved_within

    def scripted_action(self, obs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Nothing: no solution is known."""
        return np.zeros(self.action_space.shape, np.float32)

    def render(self) -> np.ndarray:
        """A picture by the environment, whole, with the nearest of its pixels: [height, width, 3].

        What another shape of picture leaves free is black.

        Raises:
            RuntimeError: the task was not made with `render_mode="rgb_array"`.
            RenderingUnavailable: the environment gave no picture.
        """
        if self.render_mode != "rgb_array":
            raise RuntimeError('make the task with render_mode="rgb_array" to render it')
        with checked.calls_into(f"{self.caption}, render"):
            picture = self._env.render()
        return fitted(as_picture(picture, self.caption), self.height, self.width)

    def close(self) -> None:
        """Close the environment."""
        with checked.calls_into(f"{self.caption}, close"):
            self._env.close()


def _make(id: str, render_mode: str | None, options: Mapping[str, Any]) -> gymnasium.Env:
    if not isinstance(options, Mapping):
        raise ValueError(f"{id}: options are a mapping of keyword arguments, not {options!r}")
    if "render_mode" in options:
        raise ValueError(f"{id}: render_mode is no option of a task; who makes it chooses")
    # Not every environment knows the name, or takes None for it.
    picture = {} if render_mode is None else {"render_mode": render_mode}
    try:
        return gymnasium.make(id, disable_env_checker=True, **picture, **options)
    except (Exception, SystemExit) as error:
        told = _told(error, id, options)
        if picture:
            given = f"render_mode={render_mode!r}"
            raise RenderingUnavailable(f"{id} cannot be made with {given}: it {told}") from error
        whose = ""
        if isinstance(error, gymnasium.error.UnregisteredEnv) and ":" not in id:
            whose = f'. If a package registers it, name that first: "package:{id}"'
        raise ValueError(f"environment {id!r} cannot be made: it {told}{whose}") from error


def _told(error: BaseException, id: str, options: Mapping[str, Any]) -> str:
    """`checked.told` of what somebody's environment raised, not of what Gymnasium made of it.

    It tells every TypeError anew, from a line of its own; where the arguments do not fit there is
    no line, and the one is named where the class or function begins. Of an option that there is
    not, it is told which there are.
    """
    first = error.__cause__
    if not (isinstance(error, TypeError) and isinstance(first, TypeError)):
        return checked.told(error)
    unknown = _UNEXPECTED.search(str(first))
    ours = traceback.extract_tb(first.__traceback__)[-1].filename == registration.__file__
    if not ours and not (unknown and unknown[1] in options):
        return checked.told(first)
    said, place = f"raised TypeError: {first}", ""
    with suppress(OSError, TypeError, ValueError, gymnasium.error.Error):  # it is in no file
        creator: Any = gymnasium.spec(id.rpartition(":")[2]).entry_point
        creator = registration.load_env_creator(creator) if isinstance(creator, str) else creator
        if unknown and unknown[1] in options:
            said = _no_option(unknown[1], creator)
        file = Path(inspect.getfile(creator))
        if _GYMNASIUM not in file.parents:
            place = f" ({file.name}, line {inspect.getsourcelines(creator)[1]})"
    return f"{said}{place}"


def _no_option(name: str, creator: Any) -> str:
    """That what makes an environment takes no such argument, with those that it takes."""
    whole = isinstance(creator, type)
    taken = parameters_of(creator) if whole else inspect.signature(creator).parameters
    names = sorted({*taken, "max_episode_steps"} - {"render_mode"})
    near = get_close_matches(name, names, 1)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    return f"takes no option {name!r}{hint} {creator.__name__} takes: {', '.join(names)}"


def _limit(env: gymnasium.Env, id: str) -> int:
    """Steps of an episode at most."""
    limit = env.spec.max_episode_steps if env.spec else None
    if limit is None or limit < 1:
        raise ValueError(
            f"{id} does not say how long an episode may be: give its task "
            "options: {max_episode_steps: 200}, or register it with max_episode_steps"
        )
    return limit


@cache
def _notice_unplanned_end(id: str) -> None:
    warnings.warn(
        f"{id} ends an episode, and plans do not know when: give its task a termination: "
        '"module:function" (hypercrl_envs.terminations has some)',
        stacklevel=3,
    )


@cache
def _notice_lost_motion(id: str, place: int) -> None:
    warnings.warn(
        f"{id}: observation[{place}] moves by less in a step than float32, in which agents "
        "observe, tells apart in numbers as large as it is: to them it stands still. Register the "
        "environment with a gymnasium.ObservationWrapper that subtracts a constant",
        stacklevel=3,
    )
