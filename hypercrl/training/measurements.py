"""What is measured while tasks are learned: scores of all tasks, forgetting, plasticity."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import nan
from typing import Any

import numpy as np

from hypercrl import metrics
from hypercrl.agent.agent import Agent
from hypercrl.base.progress import Progress
from hypercrl.base.saved import same_type
from hypercrl.planning.search import medians
from hypercrl.runs.position import Position
from hypercrl.training.evaluation import Evaluator, Score
from hypercrl.training.experiment import Experiment
from hypercrl.training.learner import Learner
from hypercrl.training.plasticity import plasticity
from hypercrl.training.schedule import Schedule
from hypercrl.training.tallies import Tallies


class Measurements:
    """Evaluations and what follows from them, into the matrices and the log.

    A run may be saved in the midst of an evaluation: scores of the tasks that are done are part of
    its state, and the evaluation, which is begun anew, goes on with the others.

    Args:
        experiment: the parts.
        evaluator: plays the episodes.
        learner: whose replay plasticity is measured on.
        schedule: says which tasks are evaluated.
        tallies: hold the matrices.
        log: writes a record of a kind with these values.
        progress: shows scores to a person.
    """

    def __init__(
        self,
        experiment: Experiment,
        evaluator: Evaluator,
        learner: Learner,
        schedule: Schedule,
        tallies: Tallies,
        log: Callable[..., None],
        progress: Progress,
    ) -> None:
        self.method = experiment.method
        self.labels = experiment.labels
        self.tasks = len(experiment.sequence)
        self.given = experiment.config.task_id == "given"
        self.evaluator = evaluator
        self.learner = learner
        self.schedule = schedule
        self.tallies = tallies
        self.log = log
        self.progress = progress
        self.scores: list[Score] = []

    def row(self, position: Position, episodes: int) -> None:
        """One row of every matrix, tasks to come included; NaN where nothing is measured."""
        scores = self.among(position, self.tasks, episodes)
        for name, rows in self.tallies.matrix.items():
            values = {task: getattr(score, name) for task, score in scores.items()}
            rows.append([values.get(task, nan) for task in range(self.tasks)])

    def among(self, position: Position, count: int, episodes: int) -> dict[int, Score]:
        """Scores of the first `count` tasks, or of a sample of them; where this was saved in its
        midst, of the rest anew."""
        env_steps = position.env_steps
        # Not by the count of environment steps, of which recorded ones are none.
        last = (position.task, position.step) == (self.tasks - 1, self.schedule.steps)
        if last or not self.tallies.matrix["success"]:
            tasks = list(range(count))
        else:
            # Drawn by the step alone: all seeds and methods are measured on the same tasks.
            tasks = self.schedule.evaluated(position.task, count, seed=env_steps)
        while rest := tasks[len(self.scores) :]:
            done, now = len(self.scores), rest[: self.evaluator.at_once]
            last = f"–{done + len(now)}" if len(now) > 1 else ""
            self.progress.doing(f"evaluating task {done + 1}{last} of {len(tasks)}")
            self._evaluate(now, env_steps, episodes)
        self.progress.doing("")
        scores, self.scores = self.scores, []
        return dict(zip(tasks, scores, strict=True))

    def _evaluate(self, tasks: Sequence[int], env_steps: int, episodes: int) -> None:
        believe = {task: partial(self.labels.belief, task) for task in tasks}
        with self.tallies.timed("evaluation"):
            scores = self.evaluator.evaluate(believe, episodes, key=env_steps)
        for task, score in zip(tasks, scores, strict=True):
            values = asdict(score)
            values["return"] = values.pop("episode_return")
            values |= values.pop("figures")
            self.log("eval", on=task + 1, **values)
            self.progress.show_score(task, score.success, told=score.told)
        self.scores += scores

    def log_forgetting(self, trained: int) -> None:
        """Average performance and forgetting over the tasks trained so far, of success over those
        in which there can be any."""
        so_far = {
            name: np.array([row[:trained] for row in rows])
            for name, rows in self.tallies.matrix.items()
        }
        told = metrics.can_succeed(so_far["success"], so_far["goal_distance"])
        for name, counted in (("success", told), ("episode_return", None)):
            values = {"average": metrics.average_performance(so_far[name], counted)}
            if trained > 1:
                values["forgetting"] = metrics.forgetting(so_far[name], counted)
            self.log(f"continual_{name.removeprefix('episode_')}", **values)

    def log_plasticity(self) -> None:
        """Where labels say which task it is that was just learned."""
        if self.given and (values := plasticity(self.method, self.learner.replay)):
            self.log("plasticity", **values)

    def log_plans(self, agent: Agent) -> None:
        """What the agent's plans since the last time took, and came to; it begins to count anew."""
        if not (plans := agent.plan_seconds):
            return
        self.tallies.plan_seconds.extend(plans)
        median = 1e3 * sorted(plans)[len(plans) // 2]
        seen = medians(agent.searches)
        self.log("plan", milliseconds=median, **(seen[-1] if seen else {}))
        self.progress.show(plan_ms=median)
        agent.plan_seconds, agent.searches = [], []

    def state(self) -> list[dict[str, Any]]:
        """Scores of an evaluation that is not done."""
        return [asdict(score) for score in self.scores]

    def load_state(self, state: Any) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: it is none.
        """
        self.scores = [Score(**score) for score in same_type("scores", state, list[Score])]
