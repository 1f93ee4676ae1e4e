"""The contract between tasks and agents: a Gymnasium environment with a reward for planning."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsFloat, TypedDict

import gymnasium
import numpy as np
import torch
from torch import Tensor

from hypercrl_envs import checked
from hypercrl_envs.names import known_name
from hypercrl_envs.task_functions import CheckedFunction, try_figures
from hypercrl_envs.window import has_display
from hypercrl_envs.world import CAMERAS


@dataclass(frozen=True)
class Exploration:
    """What random data needs to be useful: a drift of the actions, drawn once per episode.

    Attributes:
        bias_low, bias_high: [A] bounds of a uniform distribution over the mean action of an
            episode, in normalised action units, low ≤ high in each component.
    """

    bias_low: tuple[float, ...]
    bias_high: tuple[float, ...]


class PictureOptions(TypedDict, total=False):
    """What `Task` takes, and tasks hand on to it."""

    render_mode: str | None
    width: int
    height: int
    camera: str


class Move(NamedTuple):
    """What `Task.move` returns: obs [O], reward, and whether the episode has ended, and how."""

    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


class Task(gymnasium.Env[np.ndarray, np.ndarray], ABC):
    """One task of a sequence. It owns observation, reward, success, limits and rendering.

    Observations are such that a dynamics model predicts `next_obs - obs`. Actions are in
    [-1, 1]. Episodes are truncated after `max_episode_steps`; those of a task that `ends` can
    terminate before. `step` pays what `reward` says, the function that a planner evaluates on
    imagined rollouts, as it evaluates `terminated`.

    Subclasses set the spaces, `max_episode_steps`, `exploration`, `caption` and, where it is not
    10 Hz, `control_rate`.

    Attributes:
        ends: whether `terminated` can ever be true; a class that has one of its own need not say.
        restores_at_once: whether restoring a state costs no more than a step.
        control_rate: steps in a second of simulated time; so many pictures a second are real time.
        exploration: drift that makes random actions useful.
        caption: short text for people, e.g. "push 100 | 500 kg/m³".
        goal_unit: of `goal_distance`; empty where it is the task's own.
        cameras: names of those that can take the picture.
        render_modes: ways of rendering.
    """

    observation_space: gymnasium.spaces.Box  # type: ignore[reportIncompatibleVariableOverride]
    action_space: gymnasium.spaces.Box  # type: ignore[reportIncompatibleVariableOverride]
    max_episode_steps: int
    exploration: Exploration
    caption: str
    goal_unit: str = "m"
    control_rate: float = 10.0
    ends: bool = False
    restores_at_once: bool = False
    cameras: tuple[str, ...] = CAMERAS
    render_modes: tuple[str, ...] = ("rgb_array",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        ends, terminated = (
            next(place for place, kind in enumerate(cls.__mro__) if name in vars(kind))
            for name in ("ends", "terminated")
        )
        if terminated < ends:
            cls.ends = True

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        camera: str = "front",
    ) -> None:
        """
        Args:
            render_mode: one of `render_modes`, "rgb_array" for pictures by `render`, "human" for a
                window that follows every step; None: neither.
            width, height: of rendered pictures, in pixels.
            camera: one of `cameras`.

        Raises:
            ValueError: unknown render mode or camera, or a picture without pixels.
        """
        if render_mode not in (None, *self.render_modes):
            raise ValueError(
                f"unknown render mode {render_mode!r}: use None or "
                + " or ".join(repr(mode) for mode in self.render_modes)
            )
        if width < 1 or height < 1:
            raise ValueError(f"width and height must be at least 1 pixel, not {width} × {height}")
        self.render_mode = render_mode
        self.width, self.height = int(width), int(height)
        self.camera = known_name(camera, self.cameras, "camera")
        self._elapsed_steps = 0
        self._terminated = self._truncated = False
        self._observation: np.ndarray | None = None

    @property
    def metadata(self) -> dict[str, Any]:  # type: ignore[reportIncompatibleVariableOverride]
        """What Gymnasium asks about pictures: a window is named where there is a display."""
        modes = [mode for mode in self.render_modes if mode != "human" or has_display()]
        return {"render_modes": modes, "render_fps": self.control_rate}

    @property
    def observation(self) -> np.ndarray | None:
        """The present one [O]; None before `reset` and `set_state`."""
        return None if self._observation is None else self._observation.copy()

    @abstractmethod
    def reward(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """Reward of transitions: [..., O], [..., A], [..., O] → [...].

        Any leading dimensions, device and floating type. Constants are copied to a device on
        the first call there, so later calls can be captured in a CUDA graph.
        """

    def terminated(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        """Whether transitions end their episodes: [..., O], [..., A], [..., O] → bool [...].

        Batched as `reward` is. The transition that ends an episode is paid, and nothing after it.
        """
        return torch.zeros_like(next_obs[..., 0], dtype=torch.bool)

    @property
    def termination(self) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
        """`terminated` for a planner; None where nothing ends, which costs it nothing."""
        return self.terminated if self.ends else None

    @abstractmethod
    def goal_distance(self, obs: Tensor) -> Tensor:
        """How far from done, in units of `goal_unit`: [..., O] → [...]."""

    @abstractmethod
    def success(self, obs: Tensor) -> Tensor:
        """Whether the state counts as solved: [..., O] → bool [...]."""

    def observed(self, obs: Tensor, reward: Tensor, terminated: Tensor) -> Tensor:  # noqa: ARG002
        """This task's observations of an episode that somebody recorded in its environment.

        Args:
            obs: what was observed, [T + 1, o]. What is of this task already is returned as it is.
            reward: what was paid for each step, [T].
            terminated: whether each step ended the episode for good, bool [T].

        Returns:
            [T + 1, O], if these are of its environment.
        """
        return obs

    def figures(self, obs: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """What else says how well it goes: names of figures → [..., O] → [...], in SI units.

        An evaluation logs of each its mean over the second half of its episodes, under its name,
        which is none of `task_functions.TAKEN`.
        """
        return {}

    @abstractmethod
    def scripted_action(self, obs: np.ndarray) -> np.ndarray:
        """Action [A] of a hand-written solution that knows the hidden parameters, for obs [O]."""

    @abstractmethod
    def _reset_simulation(self) -> None:
        """Draw a start state with `self.np_random` and put the simulator into it."""

    @abstractmethod
    def _advance(self, action: np.ndarray) -> None:
        """Run the simulator for one control step under an action in [-1, 1]."""

    def _ending(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[bool, bool]:
        """Whether the step just made has terminated, or truncated, the episode by itself."""
        return self.ends and bool(self.terminated(obs, action, next_obs)), False

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """The observation [O], float32, of the simulator's state; a new array."""

    @abstractmethod
    def _get_physics(self) -> np.ndarray:
        """Everything that the simulator's future depends on, an array of numbers."""

    @abstractmethod
    def _set_physics(self, physics: np.ndarray) -> None:
        """Restore what `_get_physics` returned; raise ValueError if it is not of this task."""

    def _simulation_fault(self) -> str | None:
        """What went wrong in the simulator since the last reset, as far as it says so itself."""
        return None

    @classmethod
    def learned_parts(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG003
        """What the dynamics model learns of a task with these parameters beside its motion: some
        of "reward" and "ends"; nothing of one whose functions are its own."""
        return ()

    def try_out(self) -> None:
        """Do what costs no step: begin two episodes, and call the functions as planners will.

        Raises:
            TaskFault: it does not do what it is to.
        """
        starts = [torch.from_numpy(self.reset(seed=seed)[0]) for seed in (0, 1)]
        obs, next_obs = torch.stack(starts), torch.stack(starts[::-1])
        generator = torch.Generator().manual_seed(0)
        action = 2 * torch.rand(2, *self.action_space.shape, generator=generator) - 1
        self._try_functions(obs, action, next_obs)

    def _try_functions(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """See `try_out`; of transitions [2, O], [2, A], [2, O] between states of starts."""
        transition = obs, action, next_obs
        functions: list[tuple[Callable[..., Any], bool, tuple[Tensor, ...]]] = [
            (self.goal_distance, False, (obs,)),
            (self.success, True, (obs,)),
            (self.reward, False, transition),
        ]
        if self.ends:
            functions.append((self.terminated, True, transition))
        for function, boolean, inputs in functions:
            name = f"{self.caption}: {function.__name__}"
            CheckedFunction(function, name, boolean).try_out(*inputs)
        try_figures(self.figures, self.caption, obs)

    @abstractmethod
    def render(self) -> np.ndarray | None:  # type: ignore[reportIncompatibleMethodOverride]
        """By `render_mode`: a picture, uint8 [height, width, 3], or None and a window."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; the same seed gives the same episode, bit for bit.

        Returns:
            obs [O] and info {"success": bool, "goal_distance": in `goal_unit`}.

        Raises:
            TaskFault: the simulator failed, or what it returned cannot be used.
        """
        super().reset(seed=seed, options=options)
        self._elapsed_steps = 0
        self._terminated = self._truncated = False
        where = f"{self.caption}, reset"
        with checked.calls_into(where):
            self._reset_simulation()
        self._observation = self._checked_observation(where)
        self._follow()
        return self._observation.copy(), self.info()

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Run one control step, of 1 / `control_rate` s.

        Args:
            action: [A], clipped to [-1, 1].

        Returns:
            obs [O], reward, terminated, truncated (from step `max_episode_steps` on), info
            {"success": bool, "goal_distance": in `goal_unit`} of the new state. After the end of an
            episode the simulator is left alone: nothing moves, nothing is paid, and a warning says
            so.

        Raises:
            ValueError: an action of another shape, or with NaN.
            RuntimeError: no `reset` or `set_state` before.
            TaskFault: the simulator failed, or it or the reward returned what cannot be used.
        """
        obs, reward, terminated, truncated = self.move(action)
        return obs, reward, terminated, truncated, self.info()

    def move(self, action: np.ndarray) -> Move:
        """`step` without `info`, for who does not look at it after every step.

        Raises:
            ValueError, RuntimeError, TaskFault: see `step`.
        """
        if self._observation is None:
            raise RuntimeError("call reset() or set_state() before step()")
        action = self._checked(action)
        self._elapsed_steps += 1
        if self._terminated or self._truncated:
            return self._stand_still(self._observation)
        before = torch.from_numpy(self._observation)
        where = f"{self.caption}, step {self._elapsed_steps} of an episode"
        self._observation = self._advanced(action, where)
        transition = before, torch.from_numpy(action), torch.from_numpy(self._observation)
        with checked.calls_into(f"{where}: reward"):
            paid = self.reward(*transition)
        reward = checked.number(paid, f"{where}: reward")
        with checked.calls_into(f"{where}: terminated"):
            self._terminated, cut = self._ending(*transition)
        self._truncated = cut or self._elapsed_steps >= self.max_episode_steps
        self._follow()
        return Move(self._observation.copy(), reward, self._terminated, self._truncated)

    def info(self) -> dict[str, Any]:
        """{"success": bool, "goal_distance": in `goal_unit`} of the present state.

        Raises:
            RuntimeError: no `reset` or `set_state` before.
            TaskFault: one of these two failed.
        """
        if self._observation is None:
            raise RuntimeError("call reset() or set_state() before info()")
        obs = torch.from_numpy(self._observation)
        with checked.calls_into(f"{self.caption}: success or goal_distance"):
            return {
                "success": bool(self.success(obs)),
                "goal_distance": float(self.goal_distance(obs)),
            }

    def _follow(self) -> None:
        """Show the new state in the window, where there is one."""
        if self.render_mode == "human":
            self.render()

    def _stand_still(self, observation: np.ndarray) -> Move:
        """A step after the end."""
        warnings.warn(
            f"an episode of {self.caption!r} is over and is not stepped on: call reset()",
            stacklevel=4,
        )
        self._truncated |= self._elapsed_steps >= self.max_episode_steps
        return Move(observation.copy(), 0.0, self._terminated, self._truncated)

    def get_state(self) -> dict[str, Any]:
        """All that the future of this task depends on, as numpy arrays and JSON-able values.

        `set_state` of it, on this or on a freshly made task with the same parameters, in this or
        another process, continues bit for bit.

        Raises:
            TaskFault: `_get_physics` returned no array of numbers.
        """
        physics = self._get_physics()
        if not (isinstance(physics, np.ndarray) and physics.dtype.kind in "fiub"):
            raise checked.TaskFault(
                f"{self.caption}: _get_physics is to return a numpy array of numbers, not "
                f"{checked.shown(physics)}."
            )
        return {
            "physics": physics,
            "elapsed_steps": self._elapsed_steps,
            "terminated": self._terminated,
            "truncated": self._truncated,
            "np_random": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state of `get_state`; no reset is needed before.

        Raises:
            ValueError: the state belongs to a different kind of task.
        """
        elapsed = state["elapsed_steps"]
        # Steps after the end are counted too.
        over = bool(state.get("truncated", False))
        if elapsed < 0 or (elapsed > self.max_episode_steps and not over):
            raise ValueError(f"elapsed_steps of a state is {elapsed}")
        self._set_physics(np.asarray(state["physics"], dtype=np.float64))
        self._elapsed_steps = int(elapsed)
        # States from before episodes could end have neither.
        self._terminated = bool(state.get("terminated", False))
        self._truncated = bool(state.get("truncated", False))
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = state["np_random"]
        self.np_random = generator
        self._observation = np.array(self._observe(), np.float32)

    def _advanced(self, action: np.ndarray, where: str) -> np.ndarray:
        """Run the simulator for one control step; the observation [O] after it, checked."""
        with checked.calls_into(where):
            self._advance(action)
        if (fault := self._simulation_fault()) is not None:
            raise checked.TaskFault(f"{where}: {fault}.")
        return self._checked_observation(where)

    def _checked_observation(self, where: str) -> np.ndarray:
        with checked.calls_into(where):
            obs = self._observe()
        checked.array(obs, self.observation_space.shape, f"{where}: observation")
        # A copy, of what a task of others' may write its next observation into.
        return np.array(obs, np.float32)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float32)
        if action.shape != self.action_space.shape:
            raise ValueError(
                f"an action of {self.caption!r} has shape {self.action_space.shape}, "
                f"this one {action.shape}"
            )
        if np.isnan(action).any():
            raise ValueError(f"the action {action.tolist()} has NaN in it")
        return action.clip(-1.0, 1.0)  # np.clip takes twice as long
