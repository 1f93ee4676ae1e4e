"""The one training loop: act, store, update, evaluate, checkpoint, task after task."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from hypercrl import metrics
from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import CorrelatedNoise, make_noise
from hypercrl.agent.known_tasks import Watched
from hypercrl.agent.task_inference import Decision, TaskInference
from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.errors import UserError
from hypercrl.base.progress import Progress
from hypercrl.base.random_streams import derive_seed
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.planning.search import medians
from hypercrl.replay import Replay
from hypercrl.runs.run_folder import LATEST, MetricsLog, RunFolder
from hypercrl.training.evaluation import Score
from hypercrl.training.experiment import Experiment
from hypercrl_envs import Task, TaskFault

DIVERGED = 1e9
"""Times the loss at the start, or times 1, the loss of a model that predicts no motion at all."""

STEP_REPORT = ("loss", "regulariser", "gradient_norm")


@dataclass
class Position:
    """Where the loop stands: `step` steps of task `task` (from 0) are done.

    The task that the agent learns is `age` steps old: `step`, unless it infers the task and has not
    noticed, or has begun one in between. The method has taken note of its first `observed` steps.
    The loss of the run's first training step was `first_loss`.
    """

    task: int = 0
    step: int = 0
    age: int = 0
    observed: int = 0
    env_steps: int = 0
    episode_return: float = 0.0
    episode_steps: int = 0
    first_loss: float | None = None


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
        model = experiment.model
        self.replay = Replay(
            self.protocol.replay_capacity, model.obs_size, model.action_size, experiment.device
        )
        self.evaluator = experiment.evaluator()
        self.position = Position()
        self.matrix: dict[str, list[list[float]]] = {f.name: [] for f in fields(Score)}
        self.memory_bytes: list[int] = []
        self.training_seconds: list[float] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.plan_seconds: list[float] = []
        self.memory_seconds: list[float] = []
        self.update_seconds: list[float] = []
        self.updates = 0
        self.inference = experiment.inference
        self.decisions: list[Decision] = []
        self.boundaries: list[int] = []
        self.env: Task
        self.agent: Agent
        self.noise: CorrelatedNoise
        self.belief: Belief | None = None
        self.obs: Tensor
        self._training_step: Callable[[Tensor], tuple[Tensor, ...]]

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
        log_bytes = resumed["log_bytes"] if resumed is not None else 0
        self.log = MetricsLog(self.folder, log_bytes)
        try:
            for task in range(position.task, len(self.sequence)):
                self._train_task(task, resumed if position.step else None)
                resumed = None
        except TaskFault as fault:
            raise UserError(
                f"{fault} That was after {position.env_steps} environment steps, in training of "
                f"task {position.task + 1}. {self._last_good}"
            ) from fault
        finally:
            self.log.close()
            self.evaluator.close()

    def _train_task(self, task: int, resumed: dict[str, Any] | None) -> None:
        protocol, position = self.protocol, self.position
        if resumed is None:
            if task:
                self.boundaries.append(position.env_steps)
            if self.inference is None or not task:
                self._begin_task()
        self._prepare(task, resumed)
        total = protocol.random_steps + protocol.planned_steps
        self.progress.start_task(task, self.sequence.captions[task], total, position.step)
        while position.step < total:
            self._act(planned=position.age >= protocol.random_steps)
            planned_steps = position.age - protocol.random_steps
            if planned_steps == 0:
                self._end_of_random_steps()
            elif planned_steps > 0 and planned_steps % protocol.update_every == 0 and self._learns:
                self._update(protocol.updates)
            # Measured is by the true task, however the agent counts.
            planned_steps = position.step - protocol.random_steps
            if planned_steps > 0 and position.step < total:
                if planned_steps % protocol.eval_every == 0:
                    for on in range(task + 1):
                        self._evaluate(on, protocol.eval_episodes)
                if position.step % protocol.checkpoint_every == 0:
                    self._checkpoint(LATEST)
            self.progress.advance(position.step)
        self._end_task(task)

    def _begin_task(self) -> None:
        """What comes now is a task of its own."""
        self.method.begin_task()
        self.replay.clear()
        self.position.age = self.position.observed = 0
        if self.inference is not None:
            self.inference.begin_new()

    @property
    def _learns(self) -> bool:
        """Whether what happens now belongs to the task in training.

        Not if the agent has gone back to another one, and not while it is suspicious: what may be
        of a new task would be mixed into the old one.
        """
        if self.inference is None:
            return True
        return self.inference.current == self.method.tasks - 1 and not self.inference.suspicious

    def _prepare(self, task: int, resumed: dict[str, Any] | None) -> None:
        """Environment, agent and noise of the task: new, or where a checkpoint left them."""
        config, streams, device = self.experiment.config, self.experiment.streams, self._device
        self.belief = None
        self.env = self.sequence.make(task)
        self.noise = make_noise(
            self.env, config.exploration, streams.get(f"exploration of task {task}")
        )
        self.agent = Agent(
            self.experiment.planner,
            self.env.reward,
            1,
            streams.get("planner", device),
            termination=self.env.termination,
            watch=config.planner.watch,
        )
        self._prepare_training()
        if resumed is None:
            self._new_episode(seed=derive_seed(config.seed, "environment", task))
            if self.position.age >= self.protocol.random_steps:
                self._inform_agent()  # it does not know that this is another task
            return
        self.env.set_state(resumed["env"])
        self.noise.load_state(resumed["noise"])
        self.obs = resumed["obs"]
        self.agent.start = resumed["plan_start"].to(device)
        self.agent.searches = resumed.get("searches", [])
        self._inform_agent(resumed.get("belief"))

    def _prepare_training(self) -> None:
        """A training step of the method as it is now; on CUDA one graph."""
        self._training_step = self._step_on_slots
        if self._device.type == "cuda":
            self._training_step = CapturedFunction(self._step_on_slots, [self.method.sampler])

    def _act(self, planned: bool) -> None:
        """One environment step with a planned, or a random, action."""
        std = self.experiment.config.exploration.planned_std
        if planned:
            with self._timed("plan"):
                action = self.agent.act(self.obs[None])[0] + std * self.noise.step()
        else:
            action = self.noise.random_action(self.experiment.config.exploration.random_std)
        action = action.clamp(-1, 1)  # what is stored is what is executed
        with self._timed("environment"):
            next_array, reward, terminated, truncated, info = self.env.step(action.numpy())
        next_obs = torch.from_numpy(next_array)
        self.replay.add(self.obs, action, next_obs)
        self.agent.observe(self.obs[None], action[None], next_obs[None])
        self.obs = next_obs
        position = self.position
        position.step += 1
        position.age += 1
        position.env_steps += 1
        position.episode_return += float(reward)
        position.episode_steps += 1
        if planned and self.inference is not None:
            self._infer_task(self.inference)
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

    def _infer_task(self, inference: TaskInference) -> None:
        """Ask whether this is still the task that the agent believes in, and act on the answer."""
        assert isinstance(self.belief, Watched)
        chosen = inference.step(self.belief.squares[0].tolist())
        if chosen is None:
            return
        new = chosen == inference.known
        position = self.position
        self.decisions.append(Decision(position.env_steps, position.task, chosen, new))
        self._log("decision", chosen=chosen + 1, new=new)
        if new:
            self._observe()
            self.method.end_task(self.replay.contents())
            self._begin_task()
            self._prepare_training()
        else:
            self.replay.clear()
            position.observed = position.age
            self._inform_agent()

    def _new_episode(self, seed: int | None = None) -> None:
        with self._timed("environment"):
            self.obs = torch.from_numpy(self.env.reset(seed=seed)[0])
        self.noise.reset()
        self.agent.reset()
        self.replay.begin_episode()
        self.position.episode_return = 0.0
        self.position.episode_steps = 0

    def _end_of_random_steps(self) -> None:
        held = self.replay.contents()
        self.experiment.model.fit_normalisers(held.obs, held.action, held.next_obs)
        if not self.matrix["success"]:
            self._evaluate_row(self.protocol.eval_episodes)
        first = self.protocol.first_updates
        self._update(self.protocol.updates if first is None else first)

    def _end_task(self, task: int) -> None:
        self.env.close()
        self.plan_seconds += self.agent.plan_seconds
        self.agent.plan_seconds = []
        with self._timed("update"):
            self._observe()
            if self.inference is None:
                self.method.end_task(self.replay.contents())
        self._evaluate_row(self.protocol.final_episodes)
        self._log_forgetting(task + 1)
        self.training_seconds.append(self.seconds["update"] - sum(self.training_seconds))
        self.memory_bytes.append(self.method.memory_bytes() + self.replay.bytes)
        self.position.task += 1
        self.position.step = 0
        self._checkpoint(f"after_task_{task + 1}")
        self._checkpoint(LATEST)

    def _update(self, updates: int) -> None:
        """Train on the replay, then plan with the new weights."""
        started = time.perf_counter()
        self._follow()
        slots = self._draw_batches(updates)
        report: tuple[Tensor, ...] = ()
        for row in slots:
            report = self._training_step(row)
            if self.position.first_loss is None:
                self.position.first_loss = float(report[0])
        self._observe()
        values = dict(zip(STEP_REPORT, (float(v) for v in report), strict=True))
        seconds = time.perf_counter() - started
        self.seconds["update"] += seconds
        self.update_seconds.append(seconds / updates)
        self.updates += updates
        self._stop_if_diverged(**values)
        self._log("update", milliseconds=1e3 * seconds / updates, **values)
        self.progress.show(loss=values["loss"])
        self._inform_agent()
        if plans := self.agent.plan_seconds:
            self.plan_seconds += plans
            median = 1e3 * sorted(plans)[len(plans) // 2]
            seen = medians(self.agent.searches)
            self._log("plan", milliseconds=median, **(seen[-1] if seen else {}))
            self.progress.show(plan_ms=median)
            self.agent.plan_seconds = []
            self.agent.searches = []

    def _follow(self) -> None:
        """Fit the scales of what has begun to move since the random steps."""
        targets = self.experiment.model.target_normaliser
        before = targets.moving()
        fresh = self.position.age - self.position.observed
        self.method.follow(self.replay.latest(len(self.replay)), fresh)
        if self.inference is not None and not torch.equal(targets.moving(), before):
            self.inference.learn_more()

    def _draw_batches(self, count: int) -> Tensor:
        """Slots of `count` batches: [count, N], or of windows of episodes, [count, N, L]."""
        generator = self.experiment.streams.get("batches", self._device)
        model = self.experiment.model
        if isinstance(model, ContextModel):
            size, length = model.context_config.windows, model.context_config.length
            try:
                slots = self.replay.windows(generator, count * size, length)
            except ValueError as error:
                raise UserError(
                    f"{self.env.caption}: {error}: its episodes end too early for the windows of a "
                    "memory. Lower context.burn_in or context.horizon, or use memory=none."
                ) from error
            return slots.view(count, size, length)
        shape = (count, self.protocol.batch_size)
        return torch.randint(len(self.replay), shape, generator=generator, device=self._device)

    def _inform_agent(self, remembered: dict[str, Any] | None = None) -> None:
        """Let the agent plan with the present weights, and remember its episode with them."""
        self._collect_memory_seconds()
        if self.inference is None:
            self.belief = self.experiment.belief(self.position.task, 1)
        else:
            self.belief = self.experiment.watched(self.inference.current)
        if remembered is not None:
            self.belief.load_state(remembered)
        elif self.belief.changes:
            self.belief.recall(self.replay.episode())
        self.agent.believe(self.belief)

    def _collect_memory_seconds(self) -> None:
        if self.belief is not None:
            self.memory_seconds += self.belief.seconds
            self.belief.seconds = []

    def _observe(self) -> None:
        """Show the method what has come since it was last shown something."""
        new = self.position.age - self.position.observed
        if new and self._learns:
            self.method.observe(self.replay.latest(new))
        self.position.observed = self.position.age

    def _step_on_slots(self, slots: Tensor) -> tuple[Tensor, ...]:
        report = self.method.training_step(self.replay.gather(slots))
        return tuple(report[name] for name in STEP_REPORT)

    def _stop_if_diverged(self, loss: float, **others: float) -> None:
        """A gradient that is no number is in the weights already, though the loss is not yet."""
        first = self.position.first_loss or 0.0
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
        for name, rows in self.matrix.items():
            rows.append([getattr(score, name) for score in scores])

    def _log_forgetting(self, trained: int) -> None:
        """Average performance and forgetting over the tasks trained so far."""
        for name in ("success", "episode_return"):
            so_far = [row[:trained] for row in self.matrix[name]]
            values = {"average": metrics.average_performance(so_far)}
            if trained > 1:
                values["forgetting"] = metrics.forgetting(so_far)
            self._log(f"continual_{name.removeprefix('episode_')}", **values)

    def _evaluate(self, on: int, episodes: int) -> Score:
        with self._timed("evaluation"):
            score = self.evaluator.evaluate(
                on, partial(self.experiment.belief, on), episodes, key=self.position.env_steps
            )
        values = asdict(score)
        values["return"] = values.pop("episode_return")
        self._log("eval", on=on + 1, **values)
        self.progress.show_score(on, score.success)
        return score

    def _log(self, kind: str, **values: float | bool) -> None:
        self.log.write(kind, self.position.env_steps, self.position.task + 1, **values)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - started

    @property
    def _device(self) -> torch.device:
        return self.experiment.device

    def _checkpoint(self, name: str) -> None:
        with self._timed("checkpoint"):
            self.folder.save_checkpoint(name, self._state())

    def _state(self) -> dict[str, Any]:
        between_tasks = self.position.step == 0
        inside: dict[str, Any] = {}
        if not between_tasks:
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
        return {
            "position": asdict(self.position),
            "method": self.method.state(),
            "replay": self.replay.state(),
            "streams": self.experiment.streams.state(),
            "matrix": self.matrix,
            "memory_bytes": self.memory_bytes,
            "training_seconds": self.training_seconds,
            "seconds": dict(self.seconds),
            "plan_seconds": [*self.plan_seconds, *self.agent.plan_seconds],
            "memory_seconds": self.memory_seconds,
            "update_seconds": self.update_seconds,
            "updates": self.updates,
            "inference": None if self.inference is None else self.inference.state(),
            "decisions": [asdict(decision) for decision in self.decisions],
            "boundaries": self.boundaries,
            "log_bytes": self.log.flush(),
            **inside,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.position = Position(**state["position"])
        self.experiment.load_agent(state)
        self.replay.load_state(state["replay"])
        self.experiment.streams.load_state(state["streams"], self._device)
        self.matrix = state["matrix"]
        self.memory_bytes = state["memory_bytes"]
        self.training_seconds = state["training_seconds"]
        self.seconds = defaultdict(float, state["seconds"])
        self.plan_seconds = state["plan_seconds"]
        self.memory_seconds = state["memory_seconds"]
        self.update_seconds = state["update_seconds"]
        self.updates = state["updates"]
        self.decisions = [Decision(**decision) for decision in state["decisions"]]
        self.boundaries = state["boundaries"]
