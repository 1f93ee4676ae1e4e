"""How good a model and its plans are on a task: episodes, and error over k steps."""

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from math import isnan

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hypercrl.agent.agent import Agent, oracle_agent
from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import ExplorationConfig, random_episode
from hypercrl.agent.value import Value
from hypercrl.base.random_streams import derive_seed
from hypercrl.planning import Planner
from hypercrl.training.durations import Durations
from hypercrl.training.episodes import Episodes
from hypercrl_envs import Fleet, LocalFleet, closed

TASKS_AT_ONCE = 8
"""Of an evaluation that goes on in other processes; it is saved when all of these are done."""

PLANS_AHEAD = 2
"""Tasks at most whose plans are under way or wait for their robots to be moved: the fewer, the more
robots move at a time, and with one the plan would be waited for."""

TASKS_KEPT = 32
"""Whose robots and agents, on CUDA with their graphs, wait for the next evaluation."""

HELDOUT_DRAWS = 20
"""Times the held-out episodes: so many are drawn at most to find that many long ones."""


@dataclass(frozen=True)
class Score:
    """Means over the episodes of one evaluation; success and distance at the last step.

    Attributes:
        figures: the task's own, over the second half of each episode.
    """

    episode_return: float
    success: float
    goal_distance: float
    prediction_error: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def told(self) -> bool:
        """Whether success says anything: a task without a distance calls nothing by that name."""
        return self.success > 0 or not isnan(self.goal_distance)


QUANTITIES = tuple(each.name for each in fields(Score) if each.type is float)
"""Of a score, what every task has: each fills a matrix of a result."""


class Evaluator:
    """Evaluates any task of a sequence with robots, planner state and noise of its own.

    Nothing of it touches training: episodes start from the same states at every evaluation (they
    depend on seed, task and episode alone) and the planner's noise is seeded by the caller's key.

    Args:
        fleet: makes the robots.
        planner: the search; robots in one task are planned for in one call.
        seed: the run's seed.
        exploration: of the held-out data.
        horizon: k of the prediction error.
        heldout_episodes: random episodes per task that the prediction error is measured on. Where
            they end too early for a window, others are drawn in their place.
        heldout_from: step of these episodes from which on windows of it begin.
        value: by task (from 0), what counts behind the end of its plans; None: nothing.

    Attributes:
        plan_seconds: of each plan.
        pause: called again and again, at most a few steps of a robot apart.
    """

    def __init__(
        self,
        fleet: Fleet,
        planner: Planner,
        seed: int,
        exploration: ExplorationConfig,
        horizon: int,
        heldout_episodes: int,
        heldout_from: int,
        value: Callable[[int], Value | None] = lambda task: None,  # noqa: ARG005
    ) -> None:
        self.fleet = fleet
        self.planner = planner
        self.seed = seed
        self.exploration = exploration
        self.horizon = horizon
        self.heldout_episodes = heldout_episodes
        self.heldout_from = heldout_from
        self.value = value
        self.device = planner.low.device
        self.plan_seconds = Durations()
        self.pause: Callable[[], None] = lambda: None
        self._robots: dict[int, list[int]] = {}
        self._agents: dict[tuple[int, int], Agent] = {}
        self._heldout: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def at_once(self) -> int:
        """Tasks that it pays to evaluate in one call: while the robots in some of them move, plans
        are made for those in the others."""
        return TASKS_AT_ONCE if self.fleet.width > 1 else 1

    def evaluate(
        self,
        believe: Mapping[int, Callable[[int], Belief]],
        episodes: int,
        key: int,
    ) -> list[Score]:
        """Run `episodes` episodes of each of these tasks, all side by side.

        Args:
            believe: by task (from 0), what an agent knows of so many robots at first.
            key: seeds the planner's noise, together with run seed and task.

        Returns:
            A score for each task; it does not depend on what else is evaluated with it.
        """
        beliefs: dict[int, Belief] = {}
        played: list[Episodes] = []
        for task, belief in believe.items():
            agent, beliefs[task] = self._agent(task, episodes), belief(episodes)
            agent.believe(beliefs[task])
            robots = self._of(task, episodes)
            played.append(self._episodes(agent, self.fleet, robots, task, key))
        self._play(played)
        scores = []
        for (task, belief), episode in zip(beliefs.items(), played, strict=True):
            if belief.changes:
                belief = believe[task](self.heldout_episodes)
            error = self.prediction_error(task, belief)
            scores.append(Score(*episode.means(), error, episode.figures()))
        self._keep(list(believe))
        return scores

    def evaluate_oracle(
        self, task: int, episodes: int, imagined: int | None = None, key: int = 0
    ) -> Score:
        """The same, planning through a simulator: a model that makes no error on its own task.

        Args:
            imagined: the task whose simulator it is; by default this one's. With another one's the
                prediction error is not measured, but NaN.

        Raises:
            ValueError: a task that its simulator cannot roll out, or not from this one's states.
        """
        model = task if imagined is None else imagined
        sequence = self.fleet.sequence
        fleet = LocalFleet(sequence)
        with closed(fleet):  # plans look into the robots' simulators
            robots = fleet.make(task, episodes)
            tasks = [fleet.tasks[robot] for robot in robots]
            agent = oracle_agent(self.planner, sequence, model, tasks)
            played = self._episodes(agent, fleet, robots, task, key)
            self._play([played])
        error = 0.0 if model == task else float("nan")
        return Score(*played.means(), error, played.figures())

    def _episodes(
        self, agent: Agent, fleet: Fleet, robots: Sequence[int], task: int, key: int
    ) -> Episodes:
        agent.generator.manual_seed(derive_seed(self.seed, "evaluation", task, key))
        seeds = [derive_seed(self.seed, "evaluation start", task, e) for e in range(len(robots))]
        return Episodes(agent, fleet, robots, seeds, fleet.task(task).figures)

    def _play(self, played: Sequence[Episodes]) -> None:
        """All of them to their ends: while the robots in most of the tasks move, plans are made for
        those in one or two others."""
        moving, planned = deque(played), deque[Episodes]()
        while moving or planned:
            self.pause()
            for _ in range(2 * (len(moving) + len(planned))):  # a plan and a step of each
                if len(moving) > len(planned) and len(planned) < PLANS_AHEAD:
                    episodes = moving.popleft()
                    episodes.plan()
                    if episodes.going:
                        planned.append(episodes)
                elif planned:
                    episodes = planned.popleft()
                    episodes.move()
                    moving.append(episodes)
        for episodes in played:
            self.plan_seconds.extend(episodes.agent.plan_seconds)
            episodes.agent.plan_seconds = []

    def prediction_error(self, task: int, belief: Belief) -> float:
        """RMS error of the open-loop mean prediction k steps ahead, in observation units.

        Over every window of the task's held-out episodes and every dimension; NaN if no episode
        was long enough for one. The belief, which is of one robot for each of these episodes, has
        seen what came before a window.
        """
        obs, actions, inside = self._heldout_episodes(task)
        if not inside.any():
            return float("nan")
        if not belief.changes:
            obs, actions = obs[:, self.heldout_from :], actions[:, self.heldout_from :]
            windows = obs.unfold(1, self.horizon + 1, 1).transpose(2, 3)[inside]
            pushes = actions.unfold(1, self.horizon, 1).transpose(2, 3)[inside]
            return float(_errors(belief, windows, pushes).square().mean().sqrt())
        errors = open_loop_errors(belief, obs, actions, self.horizon, self.heldout_from, self.pause)
        return float(errors[inside.T].square().mean().sqrt())

    def close(self) -> None:
        """Let go of the simulators."""
        self.fleet.close()

    def _keep(self, latest: Sequence[int]) -> None:
        """Let go of what belongs to tasks that have not been evaluated for longest."""
        for task in latest:
            self._robots[task] = self._robots.pop(task)
        while len(self._robots) > max(TASKS_KEPT, len(latest)):
            task = next(iter(self._robots))
            self.fleet.dismiss(self._robots.pop(task))
            self.fleet.forget(task)
            self._agents = {key: own for key, own in self._agents.items() if key[0] != task}

    def _of(self, task: int, count: int) -> list[int]:
        """So many robots in this task."""
        made = self._robots.setdefault(task, [])
        if len(made) < count:
            made += self.fleet.make(task, count - len(made))
        return made[:count]

    def _agent(self, task: int, robots: int) -> Agent:
        if (task, robots) not in self._agents:
            env = self.fleet.task(task)
            generator = torch.Generator(self.device)
            self._agents[task, robots] = Agent(
                self.planner,
                env.reward,
                robots,
                generator,
                termination=env.termination,
                value=self.value(task),
            )
        return self._agents[task, robots]

    def _heldout_episodes(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """obs [E, T + 1, O] and actions [E, T, A] of episodes that end in padding, and whether a
        window that begins at step `heldout_from` + w lies inside its episode, [E, W]."""
        if task not in self._heldout:
            pairs = self._draw_heldout(task)
            lengths = torch.tensor([len(actions) for _, actions in pairs])
            obs, actions = (
                pad_sequence(list(part), batch_first=True) for part in zip(*pairs, strict=True)
            )
            first = self.heldout_from + self.horizon
            ends = torch.arange(first, max(first, actions.shape[1] + 1))
            inside = ends <= lengths[:, None]
            self._heldout[task] = (
                obs.to(self.device),
                actions.to(self.device),
                inside.to(self.device),
            )
        return self._heldout[task]

    def _draw_heldout(self, task: int) -> list[tuple[Tensor, Tensor]]:
        """Random episodes, the first ones that are long enough for a window, if there are any."""
        needed, wanted = self.heldout_from + self.horizon, self.heldout_episodes
        found: list[tuple[Tensor, Tensor]] = []
        short: list[tuple[Tensor, Tensor]] = []
        seeds = [
            derive_seed(self.seed, "held-out", task, number)
            for number in range(HELDOUT_DRAWS * wanted)
        ]
        while len(found) < wanted and seeds:
            self.pause()
            now = [seeds.pop(0) for _ in range(min(wanted - len(found), self.fleet.width))]
            calls = [partial(random_episode, config=self.exploration, seed=seed) for seed in now]
            for episode in self.fleet.start(self._of(task, len(calls)), calls)():
                (found if len(episode[1]) >= needed else short).append(episode)
        if not found:
            longest = max(len(actions) for _, actions in short)
            warnings.warn(
                f"{self.fleet.task(task).caption}: none of {len(short)} random episodes has "
                f"protocol.heldout_from + protocol.prediction_horizon = {needed} steps, the "
                f"longest {longest}; no prediction error is measured",
                stacklevel=2,
            )
        return (found + short)[:wanted]


def open_loop_errors(
    belief: Belief,
    obs: Tensor,
    actions: Tensor,
    horizon: int,
    first: int = 0,
    pause: Callable[[], None] = lambda: None,
) -> Tensor:
    """Errors of predictions `horizon` steps ahead, open loop, from each step of E episodes.

    Args:
        belief: of one robot for each episode; it sees what came before a prediction.
        obs, actions: [E, T + 1, O], [E, T, A].
        first: step from which on predictions begin.
        pause: called before each step.

    Returns:
        [T − horizon + 1 − first, E, O].
    """
    belief.reset()
    errors = []
    for t in range(actions.shape[1] - horizon + 1):
        pause()
        end = t + horizon
        if t >= first:
            errors.append(_errors(belief, obs[:, t : end + 1], actions[:, t:end]))
        belief.observe(obs[:, t], actions[:, t], obs[:, t + 1])
    return torch.stack(errors)


def _errors(belief: Belief, obs: Tensor, actions: Tensor) -> Tensor:
    """Of what comes at the end of windows [W, k + 1, O], [W, k, A]: [W, O]."""
    return belief.predict(obs[:, 0], actions)[:, -1] - obs[:, -1]
