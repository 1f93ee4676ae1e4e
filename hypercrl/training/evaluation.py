"""How good a model and its plans are on a task: episodes, and error over k steps."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hypercrl.agent.agent import Agent, oracle_agent
from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import ExplorationConfig, random_episode
from hypercrl.base.random_streams import derive_seed
from hypercrl.planning import Planner
from hypercrl.training.durations import Durations
from hypercrl_envs import Task, TaskSequence

HELDOUT_DRAWS = 20
"""Times the held-out episodes: so many are drawn at most to find that many long ones."""


@dataclass(frozen=True)
class Score:
    """Means over the episodes of one evaluation; success and distance at the last step."""

    episode_return: float
    success: float
    goal_distance: float
    prediction_error: float


class Evaluator:
    """Evaluates any task of a sequence with robots, planner state and noise of its own.

    Nothing of it touches training: episodes start from the same states at every evaluation (they
    depend on seed, task and episode alone) and the planner's noise is seeded by the caller's key.

    Args:
        sequence: the tasks.
        planner: the search; robots of one evaluation are planned for in one call.
        seed: the run's seed.
        exploration: of the held-out data.
        horizon: k of the prediction error.
        heldout_episodes: random episodes per task that the prediction error is measured on. Where
            they end too early for a window, others are drawn in their place.
        heldout_from: step of these episodes from which on windows of it begin.

    Attributes:
        plan_seconds: of each plan.
        pause: called again and again, at most a few steps of a robot apart.
    """

    def __init__(
        self,
        sequence: TaskSequence,
        planner: Planner,
        seed: int,
        exploration: ExplorationConfig,
        horizon: int,
        heldout_episodes: int,
        heldout_from: int,
    ) -> None:
        self.sequence = sequence
        self.planner = planner
        self.seed = seed
        self.exploration = exploration
        self.horizon = horizon
        self.heldout_episodes = heldout_episodes
        self.heldout_from = heldout_from
        self.device = planner.low.device
        self.plan_seconds = Durations()
        self.pause: Callable[[], None] = lambda: None
        self._robots: dict[int, list[Task]] = {}
        self._agents: dict[tuple[int, int], Agent] = {}
        self._heldout: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def evaluate(
        self, task: int, believe: Callable[[int], Belief], episodes: int, key: int
    ) -> Score:
        """Run `episodes` episodes of task `task` (from 0) as one batch.

        Args:
            believe: what an agent knows of so many robots at first.
            key: seeds the planner's noise, together with run seed and task.
        """
        agent = self._agent(task, episodes)
        belief = believe(episodes)
        agent.believe(belief)
        played = self._play(agent, task, episodes, key)
        if belief.changes:
            belief = believe(self.heldout_episodes)
        return Score(*played, self.prediction_error(task, belief))

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
        agent = oracle_agent(self.planner, self.sequence, model, self._tasks(task, episodes))
        error = 0.0 if model == task else float("nan")
        return Score(*self._play(agent, task, episodes, key), prediction_error=error)

    def _play(self, agent: Agent, task: int, episodes: int, key: int) -> tuple[float, float, float]:
        """Mean return, and share of success and mean goal distance at the last step."""
        tasks = self._tasks(task, episodes)
        agent.generator.manual_seed(derive_seed(self.seed, "evaluation", task, key))
        agent.reset()
        obs = np.stack([self._reset(env, task, e) for e, env in enumerate(tasks)])
        returns = np.zeros(episodes)
        infos: list[dict] = [{} for _ in tasks]
        going = list(enumerate(tasks))
        while going:
            self.pause()
            before, actions = torch.tensor(obs), agent.act(torch.from_numpy(obs))
            ended = []
            for e, env in going:
                obs[e], reward, terminated, truncated, infos[e] = env.step(actions[e].numpy())
                returns[e] += float(reward)
                if terminated or truncated:
                    ended.append(e)
            # Robots that have ended stay in the batch and stand still; nobody looks at them.
            agent.observe(before, actions, torch.from_numpy(obs))
            going = [robot for robot in going if robot[0] not in ended]
        self.plan_seconds.extend(agent.plan_seconds)
        agent.plan_seconds = []
        return (
            float(returns.mean()),
            float(np.mean([info["success"] for info in infos])),
            float(np.mean([info["goal_distance"] for info in infos])),
        )

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
        for tasks in self._robots.values():
            for env in tasks:
                env.close()

    def _reset(self, env: Task, task: int, episode: int) -> np.ndarray:
        return env.reset(seed=derive_seed(self.seed, "evaluation start", task, episode))[0]

    def _tasks(self, task: int, count: int) -> list[Task]:
        made = self._robots.setdefault(task, [])
        while len(made) < count:
            made.append(self.sequence.make(task))
        return made[:count]

    def _agent(self, task: int, robots: int) -> Agent:
        if (task, robots) not in self._agents:
            (env,) = self._tasks(task, 1)
            generator = torch.Generator(self.device)
            self._agents[task, robots] = Agent(
                self.planner, env.reward, robots, generator, termination=env.termination
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
        (env,) = self._tasks(task, 1)
        needed, wanted = self.heldout_from + self.horizon, self.heldout_episodes
        found: list[tuple[Tensor, Tensor]] = []
        short: list[tuple[Tensor, Tensor]] = []
        for number in range(HELDOUT_DRAWS * wanted):
            if len(found) == wanted:
                break
            self.pause()
            seed = derive_seed(self.seed, "held-out", task, number)
            episode = random_episode(env, self.exploration, seed)
            (found if len(episode[1]) >= needed else short).append(episode)
        if not found:
            longest = max(len(actions) for _, actions in short)
            warnings.warn(
                f"{env.caption}: none of {len(short)} random episodes has "
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
