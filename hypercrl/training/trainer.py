"""The one training loop: act, store, update, evaluate, checkpoint, task after task."""

import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from hypercrl.agent.task_inference import Change
from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import Interrupted, Interruption
from hypercrl.base.progress import Progress
from hypercrl.base.saved import same_type
from hypercrl.metrics import Decision
from hypercrl.replay.transitions import Batch
from hypercrl.runs.metrics_log import MetricsLog
from hypercrl.runs.position import Position
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import chosen as chosen_trackers
from hypercrl.training.actor import Actor
from hypercrl.training.experiment import Experiment
from hypercrl.training.first_transitions import recorded_transitions
from hypercrl.training.learner import Learner, divergence
from hypercrl.training.measurements import Measurements
from hypercrl.training.schedule import Schedule
from hypercrl.training.tallies import Tallies
from hypercrl_envs import LocalFleet, TaskFault, closed


class Trainer:
    """Trains one method on one task sequence.

    Whatever `state` returns is the whole truth about a run in progress: a trainer that loads it
    goes on exactly (bit for bit on a CPU) as the one that saved it would have. It holds between the
    stages of a step, between the training steps of one of them, and anywhere in an evaluation, of
    which the tasks that are done count: there a run is saved on a signal and by the clock.

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
        self.evaluator = experiment.evaluator(fleet=experiment.fleet())
        self.evaluator.pause = self._pause
        # With one robot there is nothing to be gained by the way to another process.
        several = self.protocol.robots > 1
        self.fleet = self.evaluator.fleet if several else LocalFleet(self.sequence)
        self.interruption = Interruption()
        self.position = Position()
        self.tallies = Tallies()
        self.measured = Measurements(
            experiment,
            self.evaluator,
            self.learner,
            self.schedule,
            self.tallies,
            self._log,
            progress,
        )
        self.actor: Actor
        self.recorded: dict[int, list[Batch]] = {}

    def run(self, resumed: dict[str, Any] | None = None, checkpoint: str = LATEST) -> None:
        """Train what is left of the sequence, from the start or from a checkpoint's state.

        Args:
            resumed: the state; None: from the start.
            checkpoint: its name. Another one than the latest takes that one's place.

        Raises:
            Interrupted: a signal came, and the latest checkpoint is of that moment.
            UserError: the model diverged, or the folder cannot be written to; names the step and
                the last good checkpoint.
            TaskFault: the environment or its reward failed; names these as well.
        """
        log_bytes = 0
        if resumed is not None:
            with self.folder.foreign_state_refused(checkpoint):
                self._load_state(resumed)
                log_bytes = same_type("log_bytes", resumed["log_bytes"], int)
                if self.position.step:
                    self._prepare(self.position.task, resumed)
            self.folder.make_latest(checkpoint)
        begun = self.position.task + bool(self.position.step)
        self.recorded = recorded_transitions(self.experiment, begun)
        # The first optimiser does so, for a second or more in which no signal would be looked at.
        import_module("torch._dynamo")
        log = MetricsLog(self.folder, log_bytes, chosen_trackers(self.experiment.config.logger))
        try:
            with (
                self.interruption.noted(),
                closed(self.evaluator),
                closed(self.fleet),
                closed(self.learner),
                log as self.log,
            ):
                if resumed is None:
                    self._checkpoint(LATEST)  # so that who finds none knows that it was lost
                self._train()
                self._pause()
                self.progress.finish()  # before trackers say that the run has
        except TaskFault as fault:
            raise TaskFault(f"{fault} That was {self.position}. {self._last_good}") from fault

    def _train(self) -> None:
        position = self.position
        for task in range(position.task, len(self.sequence)):
            if not position.step:
                self._begin_task(task)
                if task in self.recorded:
                    self._begin_with(self.recorded[task])
                self._prepare(task, None)
            self._train_task(task)

    def _train_task(self, task: int) -> None:
        """A task of the sequence, from its first step or from where a checkpoint was written."""
        schedule, position = self.schedule, self.position
        self.progress.start_task(task, self.sequence.captions[task], schedule.steps, position.step)
        stages = self._stages()
        while position.step < schedule.steps or position.stage:
            stages[position.stage]()
            position.stage = (position.stage + 1) % len(stages)
            if not position.stage and schedule.checkpoints(position.step):
                self._checkpoint(LATEST)
            self._pause()
            self.progress.advance(position.step)
        self._end_task(task)

    def _stages(self) -> tuple[Callable[[], None], ...]:
        """What a step may bring with it, in order; most often only the first is due.

        A stage that is entered anew after it was saved in its midst goes on from there.
        """
        return (
            lambda: self._act(planned=self.schedule.plans(self.learner.age)),
            self._end_random_steps,
            self._evaluate_untrained,
            self._learn,
            self._evaluate_so_far,
            self._consolidate,
            self._evaluate_trained,
        )

    def _pause(self) -> None:
        """Save if it is time to, and end if that was asked for.

        Raises:
            Interrupted: it was.
            UserError: what would be saved has diverged.
        """
        interruption = self.interruption
        self.progress.tick()
        if not interruption.due:
            return
        if self.learner.round is not None and (report := self.learner.latest_report()):
            self._stop_if_diverged(report)
        self._checkpoint(LATEST)
        if interruption.number is not None:
            raise Interrupted(interruption.number, self._saved)

    @property
    def _saved(self) -> str:
        return f"interrupted; saved {self.position}"

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
        self.position.stage = 1 if self.learner.age >= random else 0  # all but the act

    def _prepare(self, task: int, resumed: dict[str, Any] | None) -> None:
        """Robots in the task: new ones, or where a checkpoint left them."""
        self.actor = Actor(self.experiment, self.fleet, task, self.learner, self.tallies)
        if resumed is not None:
            self.actor.load_state(resumed["actor"])
            learns = self._stages().index(self._learn)
            learns_first = self._random_ends and 0 < self.position.stage <= learns
            plans = self.schedule.plans(self.learner.age) and not learns_first
            if plans and self.actor.belief is None:
                raise ValueError("there is no belief to plan with")
            return
        self.actor.begin(self._lingering)
        if self.schedule.plans(self.learner.age) and not self.position.stage:
            self.actor.inform()  # it does not know that this is another task

    def _act(self, planned: bool) -> None:
        """One environment step of each robot."""
        self.actor.act(planned)
        position = self.position
        position.step += self.protocol.robots
        position.env_steps += self.protocol.robots
        if planned:
            ended = next(iter(self.actor.ended), None)
            if (change := self.labels.after_step(ended)) is not None:
                self._change_task(change)
        for episode in self.actor.ended:
            self._log(
                "episode",
                success=episode.success,
                terminated=episode.terminated,
                length=episode.length,
                random=not planned,
                **{"return": episode.episode_return},
            )
        self.actor.begin_anew(self._lingering)

    def _change_task(self, change: Change) -> None:
        """Go on with another task of the agent's, a known one or a new one."""
        chosen, new = change.task, change.task == self.method.tasks
        position = self.position
        tried = {f"against_{task + 1}": found for task, found in change.trials.items()}
        if change.decided:
            self.tallies.decisions.append(Decision(position.env_steps, position.task, chosen, new))
        kind = "decision" if change.decided else "trial"
        self._log(kind, chosen=chosen + 1, new=new, **tried)
        first = self.learner.part(change.strange, change.first)
        if new:
            self.learner.end_task()
            self.learner.begin_task()
            self.learner.begin_with(first)
            self.learner.replay.begin_episode()
            self.actor.collect_memory_seconds()
            # It is not asked in random steps, and does not know of the new task.
            self.actor.belief = None
        else:
            self.actor.inform()

    @property
    def _lingering(self) -> float:
        return self.schedule.lingering(self.position.task, self.position.step)

    @property
    def _random_ends(self) -> bool:
        """Whether the latest step was the last random one, or a recorded one in its place."""
        given = self.experiment.config.task_id == "given"
        return self.schedule.ends_random_steps(self.position.step if given else self.learner.age)

    def _end_random_steps(self) -> None:
        if self._random_ends:
            self.learner.fit_normalisers()

    def _evaluate_untrained(self) -> None:
        first = not self.tallies.matrix["success"]
        if first and self._random_ends:
            self.measured.row(self.position, self.protocol.eval_episodes)

    def _learn(self) -> None:
        """The round of training steps that is due, or the rest of one that was begun."""
        age = self.protocol.random_steps if self._random_ends else self.learner.age
        updates = self.schedule.updates(age)
        if self.learner.round is not None or (updates and self.labels.learns):
            self._update(updates)

    def _evaluate_so_far(self) -> None:
        position = self.position
        if self.schedule.evaluates(position.step):
            self.measured.among(position, position.task + 1, self.protocol.eval_episodes)

    def _consolidate(self) -> None:
        """The method's end of a task, which may take minutes and is saved before: a signal breaks
        it off."""
        if self.position.step < self.schedule.steps:
            return
        self._checkpoint(LATEST)
        self.progress.doing("end of the task")
        try:
            with self.interruption.breaking_off():
                self._pause()
                with self.tallies.timed("update"):
                    self.learner.observe()
                    if self.labels.announces(self.position.task + 1):
                        self.learner.end_task()
        except KeyboardInterrupt as stop:
            number = self.interruption.number or signal.SIGINT
            raise Interrupted(number, self._saved) from stop

    def _evaluate_trained(self) -> None:
        if self.position.step == self.schedule.steps:
            self.measured.row(self.position, self.protocol.final_episodes)
            self.measured.log_forgetting(self.position.task + 1)
            self.measured.log_plasticity()

    def _update(self, updates: int) -> None:
        """Train on the replay, then plan with the new weights."""
        caption = self.sequence.captions[self.position.task]
        tallies, started = self.tallies, time.perf_counter()
        self.progress.doing(counted(updates, "update"))
        values = self.learner.train(updates, caption, self._pause)
        seconds = time.perf_counter() - started
        tallies.spend("update", seconds)
        tallies.update_seconds.add(seconds / updates)
        tallies.updates += updates
        self._stop_if_diverged(values)
        self._log("update", milliseconds=1e3 * seconds / updates, **values)
        self.progress.doing("")
        self.progress.show(loss=values["loss"])
        self.actor.inform()
        self.measured.log_plans(self.actor.agent)

    def _stop_if_diverged(self, report: dict[str, float]) -> None:
        if (what := divergence(self.learner.first_loss or 0.0, **report)) is not None:
            raise UserError(
                f"The model diverged ({what}) at environment step {self.position.env_steps}, "
                f"task {self.position.task + 1}. {self._last_good} Lower method.learning_rate or "
                "look at the data."
            )

    @property
    def _last_good(self) -> str:
        return f"Last good checkpoint: {self.folder.checkpoint_path(LATEST)}."

    def _end_task(self, task: int) -> None:
        self.actor.end()
        tallies = self.tallies
        tallies.plan_seconds.extend(self.actor.agent.plan_seconds)
        self.actor.agent.plan_seconds = []
        tallies.training_seconds.append(tallies.seconds["update"] - sum(tallies.training_seconds))
        tallies.memory_bytes.append(self.learner.memory_bytes())
        self.position.task += 1
        self.position.step = 0
        self._checkpoint(name := f"after_task_{task + 1}")
        self.folder.make_latest(name, keep=True)
        self.log.commit()
        self.actor.close()  # if that raises, the run goes on from there

    def _log(self, kind: str, **values: float | bool) -> None:
        self.log.write(kind, self.position.env_steps, self.position.task + 1, **values)

    def _checkpoint(self, name: str) -> None:
        with self.tallies.timed("checkpoint"):
            self.folder.save_checkpoint(name, self._state())
        self.interruption.saved()
        if name == LATEST:
            self.log.commit()

    def _state(self) -> dict[str, Any]:
        within: dict[str, Any] = {}
        if self.position.step:
            self.actor.collect_memory_seconds()
            within = {"actor": self.actor.state()}
        return {
            "position": asdict(self.position),
            "scores": self.measured.state(),
            **self.experiment.agent_state(),
            "learner": self.learner.state(),
            "streams": self.experiment.streams.state(),
            "tallies": self.tallies.state(),
            "log_bytes": self.log.flush(),
            **within,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        size = len(self.sequence), self.schedule.steps, len(self._stages())
        self.position = Position.of(state["position"], *size)
        self.measured.load_state(state["scores"])
        self.experiment.load_agent(state)
        self.learner.load_state(state["learner"])
        self.experiment.streams.load_state(state["streams"], self.experiment.device)
        self.tallies.load_state(state["tallies"])
