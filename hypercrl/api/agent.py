"""An agent out of a run, to act with in programs of one's own."""

import time
import warnings
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from threading import Lock
from typing import Any, Generic, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Belief
from hypercrl.api.arrays import Array, alike, batch
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import derive_seed
from hypercrl.config.schema import LARGEST_SEED
from hypercrl.runs.run_folder import LATEST
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl_envs import RenderingUnavailable, Task

_ROUNDING = 1e-5
"""By so much may an action that was scaled to -1 and 1 lie beyond them."""


@dataclass(frozen=True)
class Prediction(Generic[Array]):
    """States that actions lead to, without looking at what happens.

    Attributes:
        states: [H + 1, O] or [B, H + 1, O], the start included, in observation units: what the
            model expects, the mean over the tasks that are possible and the members of an ensemble.
        std: of the same shape, their standard deviation: between these tasks and members, or by the
            variance that one network predicts (`dynamics.probabilistic=true`). None where the model
            says nothing about it.
    """

    states: Array
    std: Array | None


@dataclass(frozen=True)
class PlanReport:
    """How the latest plan was found.

    Attributes:
        seconds: from the call of `act` to the action, waiting for other threads included.
        iterations: of the search; with a deadline, as many as there was time for.
        late: whether there was a deadline, and the action came after it.
    """

    seconds: float
    iterations: int
    late: bool


class TrainedAgent:
    """Acts in one task: observations in, actions out. Made by `hypercrl.load`.

    Observations and actions are those of `make_env()`: actions are between -1 and 1. They may be
    NumPy arrays, or anything that becomes one, or torch tensors, and what is returned is of the
    same kind; of one robot, [O] and [A], or of B robots, [B, O] and [B, A], that begin their
    episodes together. How many there are is settled by the first call after `reset`.

    All methods may be called from several threads. One call is served at a time: an `observe`
    during an `act` waits until that has its action.

    Attributes:
        task: number of the task, from 1.
        caption: of the task.
        observation_size, action_size: O and A.
        control_rate: steps a second that the task was trained at.
        last_plan: how the latest action was found; None before the first.
    """

    def __init__(self, experiment: Experiment, task: int, seed: int) -> None:
        """
        Args:
            experiment: with what was learned.
            task: from 0.
            seed: of the planner's noise, and of sampled states.
        """
        self.task = task + 1
        self.last_plan: PlanReport | None = None
        self._experiment = experiment
        self._env = experiment.robot(task)
        self.caption = self._env.caption
        self.control_rate = self._env.control_rate
        self.observation_size = experiment.sequence.observation_size
        self.action_size = experiment.sequence.action_size
        self._lock = Lock()
        self._seed = seed
        self._robots: int | None = None
        self._agent = experiment.agent(task, self._env)
        self._agent.generator.manual_seed(seed)

    def __repr__(self) -> str:
        return f"TrainedAgent(task={self.task}, caption={self.caption!r})"

    def make_env(self, render_mode: str | None = None, **picture: Any) -> Task:
        """The simulated task that the agent was trained in, a Gymnasium environment.

        Args:
            render_mode: "rgb_array" to use `render`.
            picture: width and height in pixels, camera; as the task takes them.

        Raises:
            UserError: pictures that the task cannot make.
        """
        try:
            return self._experiment.robot(self.task - 1, render_mode, **picture)
        except RenderingUnavailable as error:
            raise UserError(str(error)) from error

    @overload
    def act(self, obs: Tensor, deadline: float | None = None) -> Tensor: ...
    @overload
    def act(self, obs: ArrayLike, deadline: float | None = None) -> np.ndarray: ...
    def act(self, obs: ArrayLike | Tensor, deadline: float | None = None) -> np.ndarray | Tensor:
        """The action to execute now, float32 between -1 and 1.

        Args:
            obs: [O] or [B, O].
            deadline: seconds from now in which the action is wanted. The search then ends before
                an iteration that would end too late, by the time that its longest one so far has
                taken, and the best plan so far is executed. The first iteration is always run: a
                deadline that is shorter than that is missed, and `last_plan.late` says so. Call
                `warm_up` before the first one that matters.

        Returns:
            [A] or [B, A].

        Raises:
            ValueError: observations of another size, or that are not finite; another number of
                robots than the episode has; a deadline that is not a positive number.
        """
        started = time.perf_counter()
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline is in seconds and more than 0, not {deadline}")
        end = None if deadline is None else started + deadline
        many, single = batch("obs", obs, self.observation_size)
        with self._lock:
            agent = self._agent_of(len(many))
            action = agent.act(many, end)
            agent.plan_seconds.clear()
            seconds = time.perf_counter() - started
            late = deadline is not None and seconds > deadline
            self.last_plan = PlanReport(seconds, agent.iterations, late)
        return alike(action, single, obs)

    def observe(
        self, obs: ArrayLike | Tensor, action: ArrayLike | Tensor, next_obs: ArrayLike | Tensor
    ) -> None:
        """Tell what was executed and where it led, once for every step, in order.

        A memory, and an agent that infers which task it is in, learn from it about the robot; for
        other agents it changes nothing.

        Args:
            obs: [O] or [B, O] before the step.
            action: [A] or [B, A] that was executed, whoever chose it: from -1 to 1.
            next_obs: [O] or [B, O] after it.

        Raises:
            ValueError: see `act`; an action beyond -1 to 1; or not of one number of robots.
        """
        sizes = (self.observation_size, self.action_size, self.observation_size)
        names = ("obs", "action", "next_obs")
        parts = [
            batch(name, part, size)[0]
            for name, part, size in zip(names, (obs, action, next_obs), sizes, strict=True)
        ]
        _one_number(names, parts)
        _within("action", parts[1])
        with self._lock:
            agent = self._agent_of(len(parts[0]))
            agent.observe(*parts)
            self._belief(agent).seconds.clear()

    @overload
    def predict(
        self, obs: Tensor, actions: ArrayLike | Tensor, samples: int = 256
    ) -> Prediction[Tensor]: ...
    @overload
    def predict(
        self, obs: ArrayLike, actions: ArrayLike | Tensor, samples: int = 256
    ) -> Prediction[np.ndarray]: ...
    def predict(
        self, obs: ArrayLike | Tensor, actions: ArrayLike | Tensor, samples: int = 256
    ) -> Prediction[np.ndarray] | Prediction[Tensor]:
        """Where actions lead to in the model, by all that has been observed of the episode.

        The same arguments give the same prediction, and no later plan depends on it.

        Args:
            obs: [O] or [B, O] to start from; B is the episode's number of robots where
                observations tell something about them, else any.
            actions: [H, A] or [B, H, A], from -1 to 1, for a horizon H of one's own.
            samples: trajectories that the standard deviation of a model with a variance is
                measured on, 2 or more; 0: none is.

        Raises:
            ValueError: see `observe`; another number of samples.
        """
        if not isinstance(samples, Integral) or samples < 0 or samples == 1:
            raise ValueError(
                f"samples is 2 or more, or 0 for no standard deviation, not {samples!r}"
            )
        starts, single = batch("obs", obs, self.observation_size)
        controls, _ = batch("actions", actions, None, self.action_size)
        _one_number(("obs", "actions"), (starts, controls))
        _within("actions", controls)
        with self._lock:
            device = self._experiment.device
            belief = self._belief(self._agent)
            if belief.changes:
                belief = self._belief(self._agent_of(len(starts)))
            start, control = starts.to(device), controls.to(device)
            states = belief.predict(start, control)
            std = None
            if samples:
                generator = torch.Generator(device)
                generator.manual_seed(derive_seed(self._seed, "prediction"))
                std = belief.spread(start, control, samples, generator)
        return Prediction(
            alike(states, single, obs), None if std is None else alike(std, single, obs)
        )

    def reset(self) -> None:
        """A new episode: forget plan and observations of the last one.

        The planner's noise goes on from where it is; load the agent again to repeat it.
        """
        with self._lock:
            self._agent.reset()
            self._robots = None

    def warm_up(self, obs: ArrayLike | Tensor) -> None:
        """Plan a few times for observations [O] or [B, O], until plans take no longer than later.

        The first plans of a process are slow ones, and on CUDA a graph is captured. Begins a new
        episode of as many robots; later actions are the same as without it.

        Raises:
            ValueError: see `act`.
        """
        many, _ = batch("obs", obs, self.observation_size)
        with self._lock:
            self._robots = None
            self._agent_of(len(many)).warm_up(many)

    def _agent_of(self, robots: int) -> Agent:
        """The episode's planner, for so many robots."""
        if self._robots not in (None, robots):
            raise ValueError(
                f"this episode is of {self._robots} robots, not {robots}; reset() begins another"
            )
        if len(self._agent.start) != robots:
            generator = self._agent.generator
            self._agent = self._experiment.agent(self.task - 1, self._env, robots, generator)
        self._robots = robots
        return self._agent

    @staticmethod
    def _belief(agent: Agent) -> Belief:
        assert agent.belief is not None
        return agent.belief


def load(
    run: str | Path,
    task: int = 1,
    *,
    checkpoint: str = LATEST,
    device: str = "cpu",
    seed: int = 0,
    trust: bool = False,
) -> TrainedAgent:
    """The agent of a run, to act in one of its tasks; the run may still go on.

    Args:
        run: its folder, or "push_demo", which comes with hypercrl.
        task: from 1, as `hypercrl play` counts; left out, the run's first. Its reward is planned
            for; the model is the task's own, or with `task_id=inferred` what observations say.
        checkpoint: "latest", or "after_task_2" for what the agent could then.
        device: cpu, cuda, cuda:1 or auto, whatever the run was trained on.
        seed: of the planner's noise: the same as `hypercrl play seed=` takes.
        trust: import code that the run names even where a stranger wrote it (SECURITY.md).

    Raises:
        UserError: no such run, task, checkpoint or device; a seed that is no number from 0 to
            2^63 - 1; or a run that has learned nothing, of `planner.dynamics=simulator`.
    """
    if not (isinstance(seed, Integral) and 0 <= seed <= LARGEST_SEED):
        raise UserError(f"seed={seed!r}: give a whole number from 0 to {LARGEST_SEED}.")
    experiment = open_run(Path(run), device, checkpoint, trust=trust)
    index = experiment.index(task)
    if experiment.plans_with_simulator:
        raise UserError(
            f"{run} plans with the simulator and has learned no model; play it with: "
            "hypercrl play run=DIR"
        )
    if instead := experiment.untrained(index):
        warnings.warn(
            f"task {task} was not trained in checkpoint {checkpoint!r}: {instead}", stacklevel=2
        )
    return TrainedAgent(experiment, index, int(seed))


def _one_number(names: tuple[str, ...], parts: list[Tensor] | tuple[Tensor, ...]) -> None:
    """Raise ValueError unless all are of as many robots."""
    if len({len(part) for part in parts}) > 1:
        there = ", ".join(f"{name} {len(part)}" for name, part in zip(names, parts, strict=True))
        raise ValueError(f"all must be of one number of robots, not {there}")


def _within(name: str, actions: Tensor) -> None:
    """Raise ValueError for what no robot of the task executes."""
    if (largest := float(actions.abs().max())) > 1 + _ROUNDING:
        raise ValueError(
            f"{name} must be from -1 to 1, as act() returns them, not {largest:g}: give what was "
            "executed, clipped, in halves of the action range"
        )
