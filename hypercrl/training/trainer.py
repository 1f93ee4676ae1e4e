"""The one training loop: act, store, update, evaluate, checkpoint, task after task."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from hypercrl import metrics
from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import CorrelatedNoise, make_noise
from hypercrl.agent.task_inference import Decision
from hypercrl.base.errors import UserError
from hypercrl.base.progress import Progress
from hypercrl.base.random_streams import derive_seed
from hypercrl.planning.search import medians
from hypercrl.replay.transitions import Batch
from hypercrl.runs.metrics_log import MetricsLog
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import chosen
from hypercrl.training.evaluation import Score
from hypercrl.training.experiment import Experiment
from hypercrl.training.first_transitions import recorded_transitions
from hypercrl.training.learner import Learner
from hypercrl.training.schedule import Schedule
from hypercrl.training.tallies import Tallies
from hypercrl_envs import Task, TaskFault

DIVERGED = 1e9
"""Times the loss at the start, or times 1, the loss of a model that predicts no motion at all."""


@dataclass
class Position:
    """Where the loop stands: `step` steps of task `task` (from 0) are done."""

    task: int = 0
    step: int = 0
    env_steps: int = 0
    episode_return: float = 0.0
    episode_steps: int = 0


class Trainer:
    """Trains one method on one task sequence.

    Whatever `state` returns is the whole truth about a run in progress: a trainer that loads it
    goes on exactly (bit for bit on a CPU) as the one that saved it would have.

    Args:
        experiment: the parts.
        folder: where logs and checkpoints go.
        progress: shows a person how far it is.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, progress: Progress) -> None:
        self.experiment = experiment
        self.folder = folder
        self.progress = progress
        self.protocol = experiment.config.protocol
        self.method = experiment.method
        self.sequence = experiment.sequence
        self.labels = experiment.labels
        self.learner = Learner(experiment)
        self.schedule = Schedule(self.protocol)
        self.evaluator = experiment.evaluator()
        self.position = Position()
        self.tallies = Tallies()
        self.env: Task
        self.agent: Agent
        self.noise: CorrelatedNoise
        self.belief: Belief | None = None
        self.obs: Tensor
        self.recorded: dict[int, list[Batch]] = {}

    def run(self, resumed: dict[str, Any] | None = None) -> None:
        """Train what is left of the sequence, from the start or from a checkpoint's state.

        Raises:
            UserError: the model diverged, or the environment or its reward failed; names the step
                and the last good checkpoint.
        """
        if resumed is not None:
            with self.folder.foreign_state_refused(LATEST):
                self._load_state(resumed)
        position = self.position
        begun = position.task + bool(position.step)
        self.recorded = recorded_transitions(self.experiment, begun)
        log_bytes = resumed["log_bytes"] if resumed is not None else 0
        self.log = MetricsLog(self.folder, log_bytes, chosen(self.experiment.config.logger))
        finished = False
        try:
            for task in range(position.task, len(self.sequence)):
                self._train_task(task, resumed if position.step else None)
                resumed = None
            finished = True
        except TaskFault as fault:
            raise UserError(
                f"{fault} That was after {position.env_steps} environment steps, in training of "
                f"task {position.task + 1}. {self._last_good}"
            ) from fault
        finally:
            self.log.close(finished)
            self.evaluator.close()

    def _train_task(self, task: int, resumed: dict[str, Any] | None) -> None:
        """A task of the sequence, from its first step or from where a checkpoint was written."""
        schedule, position, learner = self.schedule, self.position, self.learner
        if resumed is None:
            self._begin_task(task)
        self._prepare(task, resumed)
        if resumed is None and task in self.recorded:
            self._begin_with(self.recorded[task])
        self.progress.start_task(task, self.sequence.captions[task], schedule.steps, position.step)
        while position.step < schedule.steps:
            self._act(planned=schedule.plans(learner.age))
            if schedule.ends_random_steps(learner.age):
                self._end_of_random_steps()
            if self.labels.learns and (updates := schedule.updates(learner.age)):
                self._update(updates)
            if schedule.evaluates(position.step):
                for on in range(task + 1):
                    self._evaluate(on, self.protocol.eval_episodes)
            if schedule.checkpoints(position.step):
                self._checkpoint(LATEST)
            self.progress.advance(position.step)
        self._end_task(task)

    def _begin_task(self, task: int) -> None:
        if task:
            self.tallies.boundaries.append(self.position.env_steps)
        if self.labels.announces(task):
            self.learner.begin_task()

    def _begin_with(self, episodes: list[Batch]) -> None:
        """Recorded transitions in place of as many random steps."""
        self.learner.begin_with(episodes)
        random = self.protocol.random_steps
        self.position.step = min(self.learner.age, random)
        self.learner.replay.begin_episode()
        if self.learner.age >= random:
            self._end_of_random_steps()
            self._update(self.schedule.updates(random))

    def _prepare(self, task: int, resumed: dict[str, Any] | None) -> None:
        """Environment, agent and noise of the task: new, or where a checkpoint left them."""
        experiment = self.experiment
        config, streams, device = experiment.config, experiment.streams, experiment.device
        self.belief = None
        self.env = self.sequence.make(task)
        self.noise = make_noise(
            self.env, config.exploration, streams.get(f"exploration of task {task}")
        )
        self.agent = Agent(
            experiment.planner,
            self.env.reward,
            1,
            streams.get("planner", device),
            termination=self.env.termination,
            watch=config.planner.watch,
        )
        if resumed is None:
            self._new_episode(seed=derive_seed(config.seed, "environment", task))
            if self.schedule.plans(self.learner.age):
                self._inform_agent()  # it does not know that this is another task
            return
        self.env.set_state(resumed["env"])
        self.noise.load_state(resumed["noise"])
        self.obs = resumed["obs"]
        self.agent.start = resumed["plan_start"].to(device)
        self.agent.searches = resumed.get("searches", [])
        self._inform_agent(resumed.get("belief"))

    def _act(self, planned: bool) -> None:
        """One environment step with a planned, or a random, action."""
        std = self.experiment.config.exploration.planned_std
        if planned:
            with self.tallies.timed("plan"):
                action = self.agent.act(self.obs[None])[0] + std * self.noise.step()
        else:
            action = self.noise.random_action(self.experiment.config.exploration.random_std)
        action = action.clamp(-1, 1)  # what is stored is what is executed
        with self.tallies.timed("environment"):
            next_array, reward, terminated, truncated, info = self.env.step(action.numpy())
        next_obs = torch.from_numpy(next_array)
        self.learner.add(self.obs, action, next_obs)
        self.agent.observe(self.obs[None], action[None], next_obs[None])
        self.obs = next_obs
        position = self.position
        position.step += 1
        position.env_steps += 1
        position.episode_return += float(reward)
        position.episode_steps += 1
        if planned and (chosen := self.labels.after_step()) is not None:
            self._change_task(chosen)
        if terminated or truncated:
            self._log(
                "episode",
                success=bool(info["success"]),
                terminated=terminated,
                length=position.episode_steps,
                random=not planned,
                **{"return": position.episode_return},
            )
            self._new_episode()

    def _change_task(self, chosen: int) -> None:
        """Go on with another task of the agent's, a known one or a new one."""
        new = chosen == self.method.tasks
        position = self.position
        self.tallies.decisions.append(Decision(position.env_steps, position.task, chosen, new))
        self._log("decision", chosen=chosen + 1, new=new)
        if new:
            self.learner.observe()
            self.learner.end_task()
            self.learner.begin_task()
        else:
            self.learner.go_back()
            self._inform_agent()

    def _new_episode(self, seed: int | None = None) -> None:
        with self.tallies.timed("environment"):
            self.obs = torch.from_numpy(self.env.reset(seed=seed)[0])
        self.noise.reset()
        self.agent.reset()
        self.learner.replay.begin_episode()
        self.position.episode_return = 0.0
        self.position.episode_steps = 0

    def _end_of_random_steps(self) -> None:
        self.learner.fit_normalisers()
        if not self.tallies.matrix["success"]:
            self._evaluate_row(self.protocol.eval_episodes)

    def _update(self, updates: int) -> None:
        """Train on the replay, then plan with the new weights."""
        tallies, started = self.tallies, time.perf_counter()
        values = self.learner.train(updates, self.env.caption)
        seconds = time.perf_counter() - started
        tallies.spend("update", seconds)
        tallies.update_seconds.append(seconds / updates)
        tallies.updates += updates
        self._stop_if_diverged(**values)
        self._log("update", milliseconds=1e3 * seconds / updates, **values)
        self.progress.show(loss=values["loss"])
        self._inform_agent()
        if plans := self.agent.plan_seconds:
            tallies.plan_seconds += plans
            median = 1e3 * sorted(plans)[len(plans) // 2]
            seen = medians(self.agent.searches)
            self._log("plan", milliseconds=median, **(seen[-1] if seen else {}))
            self.progress.show(plan_ms=median)
            self.agent.plan_seconds = []
            self.agent.searches = []

    def _inform_agent(self, remembered: dict[str, Any] | None = None) -> None:
        """Let the agent plan with the present weights, and remember its episode with them."""
        self._collect_memory_seconds()
        self.belief = self.labels.training_belief(self.position.task)
        if remembered is not None:
            self.belief.load_state(remembered)
        elif self.belief.changes:
            self.belief.recall(self.learner.replay.episode())
        self.agent.believe(self.belief)

    def _collect_memory_seconds(self) -> None:
        if self.belief is not None:
            self.tallies.memory_seconds += self.belief.seconds
            self.belief.seconds = []

    def _stop_if_diverged(self, loss: float, **others: float) -> None:
        """A gradient that is no number is in the weights already, though the loss is not yet."""
        first = self.learner.first_loss or 0.0
        finite = all(map(isfinite, (loss, *others.values())))
        if finite and loss <= DIVERGED * max(abs(first), 1.0):
            return
        beside = ", ".join(f"{name} {value:g}" for name, value in others.items())
        raise UserError(
            f"The model diverged (loss {loss:g}, {first:g} at the start; {beside}) at "
            f"environment step {self.position.env_steps}, task {self.position.task + 1}. "
            f"{self._last_good} Lower method.learning_rate or look at the data."
        )

    @property
    def _last_good(self) -> str:
        there = LATEST in self.folder.checkpoints()
        path = self.folder.checkpoint_path(LATEST) if there else "none was written yet"
        return f"Last good checkpoint: {path}."

    def _evaluate_row(self, episodes: int) -> None:
        """One row of every matrix: all tasks of the sequence, those to come included."""
        scores = [self._evaluate(on, episodes) for on in range(len(self.sequence))]
        for name, rows in self.tallies.matrix.items():
            rows.append([getattr(score, name) for score in scores])

    def _log_forgetting(self, trained: int) -> None:
        """Average performance and forgetting over the tasks trained so far."""
        for name in ("success", "episode_return"):
            so_far = [row[:trained] for row in self.tallies.matrix[name]]
            values = {"average": metrics.average_performance(so_far)}
            if trained > 1:
                values["forgetting"] = metrics.forgetting(so_far)
            self._log(f"continual_{name.removeprefix('episode_')}", **values)

    def _evaluate(self, on: int, episodes: int) -> Score:
        with self.tallies.timed("evaluation"):
            score = self.evaluator.evaluate(
                on, partial(self.labels.belief, on), episodes, key=self.position.env_steps
            )
        values = asdict(score)
        values["return"] = values.pop("episode_return")
        self._log("eval", on=on + 1, **values)
        self.progress.show_score(on, score.success)
        return score

    def _end_task(self, task: int) -> None:
        self.env.close()
        tallies = self.tallies
        tallies.plan_seconds += self.agent.plan_seconds
        self.agent.plan_seconds = []
        with tallies.timed("update"):
            self.learner.observe()
            if self.labels.announces(task + 1):
                self.learner.end_task()
        self._evaluate_row(self.protocol.final_episodes)
        self._log_forgetting(task + 1)
        tallies.training_seconds.append(tallies.seconds["update"] - sum(tallies.training_seconds))
        tallies.memory_bytes.append(self.method.memory_bytes() + self.learner.replay.bytes)
        self.position.task += 1
        self.position.step = 0
        self._checkpoint(name := f"after_task_{task + 1}")
        self.folder.make_latest(name)
        self.log.commit()

    def _log(self, kind: str, **values: float | bool) -> None:
        self.log.write(kind, self.position.env_steps, self.position.task + 1, **values)

    def _checkpoint(self, name: str) -> None:
        with self.tallies.timed("checkpoint"):
            self.folder.save_checkpoint(name, self._state())
        if name == LATEST:
            self.log.commit()

    def _state(self) -> dict[str, Any]:
        inside: dict[str, Any] = {}
        if self.position.step:
            inside = {
                "env": self.env.get_state(),
                "noise": self.noise.state(),
                "obs": self.obs,
                "plan_start": self.agent.start,
                "searches": self.agent.searches,
            }
            if self.belief is not None:
                inside["belief"] = self.belief.state()
        self._collect_memory_seconds()
        plan_seconds = [*self.tallies.plan_seconds, *self.agent.plan_seconds]
        return {
            "position": asdict(self.position),
            "method": self.method.state(),
            "learner": self.learner.state(),
            "streams": self.experiment.streams.state(),
            "tallies": replace(self.tallies, plan_seconds=plan_seconds).state(),
            "labels": self.labels.state(),
            "log_bytes": self.log.flush(),
            **inside,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.position = Position(**state["position"])
        self.experiment.load_agent(state)
        self.learner.load_state(state["learner"])
        self.experiment.streams.load_state(state["streams"], self.experiment.device)
        self.tallies.load_state(state["tallies"])
