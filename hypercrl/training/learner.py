"""The learning half of the loop: what the agent lives through is stored, and trained on."""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedSteps
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.saved import same_kind, same_type
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.methods.base import STEP_REPORT
from hypercrl.replay import Replay
from hypercrl.replay.bootstrap import bootstrap_batches, bootstrap_weights
from hypercrl.replay.transitions import Batch, tensor_bytes
from hypercrl.training.experiment import Experiment
from hypercrl.training.value_learner import ValueLearner

DIVERGED = 1e9
"""Times the loss at the start, or times 1, the loss of a model that predicts no motion at all."""


def divergence(first_loss: float, loss: float, **others: float) -> str | None:
    """What a training step's report says of a model that has diverged; None: it has not.

    A gradient that is no number is in the weights already, though the loss is not yet.

    Args:
        first_loss: of the run's first step; loss, others: the report.
    """
    finite = all(map(isfinite, (loss, *others.values())))
    if finite and loss <= DIVERGED * max(abs(first_loss), 1.0):
        return None
    beside = ", ".join(f"{name} {value:g}" for name, value in others.items())
    return f"loss {loss:g}, {first_loss:g} at the start; {beside}"


class Learner:
    """Takes the method through its tasks: their begin, rounds of training steps, their end.

    Args:
        experiment: the parts.

    Attributes:
        replay: transitions of the task in training.
        age: steps that the task in training is old: the step of the sequence's task, unless the
            agent infers the task and has not noticed, or has begun one in between.
        observed: of these, how many the method has taken note of, or need not: they are not kept.
        first_loss: of the run's first training step.
        round: slots of the training steps that are left of a round, [count, N], of windows
            [count, N, L], of members [count, M, N]; None: none is begun.
        weights: [M, capacity] of what stands in the replay's slots for M > 1 members, see
            `hypercrl.replay.bootstrap`; they follow from the run's seed and the method's task.
        value: learns what counts behind the end of a plan; None: nothing does, or there is no task
            yet.
        report: of the latest training step, see `STEP_REPORT`, and the value's loss if there is
            one; empty before the first one.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.method = experiment.method
        self.labels = experiment.labels
        self.model = experiment.model
        self.device = experiment.device
        self.streams = experiment.streams
        self.batch_size = experiment.config.protocol.batch_size
        self.random_steps = experiment.config.protocol.random_steps
        self.replay = Replay(
            experiment.config.protocol.replay_capacity,
            self.model.obs_size,
            self.model.action_size,
            self.device,
            experiment.config.protocol.robots,
        )
        self.experiment = experiment
        self.value: ValueLearner | None = None
        self.age = 0
        self.observed = 0
        self.first_loss: float | None = None
        self.round: Tensor | None = None
        self.report: dict[str, Tensor] = {}
        self.weights: Tensor
        self._training_steps: Callable[[Tensor], tuple[int, tuple[Tensor, ...]]]
        self.prepare()

    def prepare(self) -> None:
        """Make training steps of the method as it is now; on CUDA several are one graph."""
        method, slots = self.method, self.replay.capacity
        if method.members > 1:
            seed = derive_seed(self.streams.seed, "bootstrap", method.tasks)
            generator = torch.Generator().manual_seed(seed)
            weights = bootstrap_weights(method.members, slots, generator)
            self.weights = weights.to(self.device)
        self._training_steps = lambda slots: (1, self._step_on_slots(slots[0]))
        if self.device.type == "cuda":
            self._training_steps = CapturedSteps(self._step_on_slots, self.samplers)

    @property
    def samplers(self) -> list[torch.Generator]:
        """Generators that training steps draw from."""
        others = [] if self.value is None else [self.value.sampler]
        return [self.method.sampler, *others]

    def begin_task(self) -> None:
        """What comes now is a task of its own."""
        self.method.begin_task()
        self.replay.clear()
        self.age = self.observed = 0
        self.labels.begin()
        self._begin_value()
        self.prepare()

    def close(self) -> None:
        """Let go of the simulator that a value has the rewards of.

        Raises:
            TaskFault: see `hypercrl_envs.close`.
        """
        value, self.value = self.value, None
        if value is not None:
            value.close()

    def _begin_value(self) -> None:
        self.close()
        if self.experiment.values:
            self.value = ValueLearner(self.experiment, self.method.tasks - 1, self.replay)

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Take in one step of each robot, [N, O], [N, A], [N, O]."""
        self.age += self.replay.robots
        if self.labels.keeps:
            self.replay.add(obs, action, next_obs)
        else:
            self.observed = self.age

    def begin_with(self, episodes: Iterable[Batch]) -> None:
        """Store episodes that were recorded elsewhere as the task's first steps."""
        for episode in episodes:
            self.replay.begin_episode()
            parts = (part[:, None] for part in (episode.obs, episode.action, episode.next_obs))
            for transition in zip(*parts, strict=True):
                self.add(*transition)

    def fit_normalisers(self) -> None:
        """Fit the scales of what has moved in the random steps."""
        self.method.fit_normalisers(self.replay.contents())
        if self.value is not None:
            self.value.fit()

    def train(
        self, steps: int, caption: str, pause: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """A round of so many training steps, or what is left of one; the report of the last one.

        Args:
            steps: how many.
            caption: of the task, for the message.
            pause: called before each step, on CUDA before each graph of several, where `state` can
                be saved and gone on from.

        Raises:
            UserError: there is no window for a memory in the replay.
        """
        if self.round is None:
            self._follow()
            self.round = self._draw_batches(steps, caption)
        if self.value is not None:
            self.value.follow()
        while len(self.round):
            pause()
            taken, report = self._training_steps(self.round)
            names = STEP_REPORT if self.value is None else (*STEP_REPORT, "value_loss")
            self.report = dict(zip(names, report, strict=True))
            self.round = self.round[taken:]
            if self.first_loss is None:
                self.first_loss = float(report[0])
        self.round = None
        self.observe()
        return self.latest_report()

    def latest_report(self) -> dict[str, float]:
        """Numbers of the latest training step; waits for the device."""
        return {name: float(value) for name, value in self.report.items()}

    def observe(self) -> None:
        """Show the method what has come since it was last shown something; in a doubt about the
        task later, as what it is of is not known yet."""
        if not self.labels.learns:
            return
        if new := self.age - self.observed:
            self.method.observe(self.replay.latest(new))
        self.observed = self.age

    def end_task(self) -> None:
        """The task in training is over."""
        self.method.end_task(self.replay.contents())

    def part(self, strange: int, first: int = 0) -> list[Batch]:
        """What comes now, and the `strange` latest steps of the replay, may be of another task than
        the one in training.

        Returns:
            The `first` latest ones, in their episodes; at most as many as are random in a task.
        """
        begun = self.replay.latest_episodes(min(first, self.random_steps))
        own = self.age - self.observed - strange
        if strange:
            # One stays of a doubt longer than the replay: there is to be a batch of every task.
            self.replay.forget_latest(min(strange, len(self.replay) - 1))
            if own > 0:
                self.method.observe(self.replay.latest(own))
            self.observed = self.age
        for robot in range(self.replay.robots):
            self.replay.begin_episode(robot)
        return begun

    def _follow(self) -> None:
        """Fit the scales of what has begun to move since the random steps."""
        targets = self.model.target_normaliser
        before = targets.since.clone()
        self.method.follow(self.replay.latest(len(self.replay)), self.age - self.observed)
        if not torch.equal(targets.since, before):
            self.labels.new_motion()

    def _draw_batches(self, count: int, caption: str) -> Tensor:
        """Slots of `count` batches, see `round`."""
        generator = self.streams.get("batches", self.device)
        if isinstance(self.model, ContextModel):
            size, length = self.model.context_config.windows, self.model.context_config.length
            try:
                slots = self.replay.windows(generator, count * size, length)
            except ValueError as error:
                raise UserError(
                    f"{caption}: {error}: its episodes end too early for the windows of a "
                    "memory. Lower context.burn_in or context.horizon, or use memory=none."
                ) from error
            return slots.view(count, size, length)
        if self.method.members > 1:
            weights = self.weights[:, : len(self.replay)]
            return bootstrap_batches(weights, count, self.batch_size, generator)
        shape = (count, self.batch_size)
        return torch.randint(len(self.replay), shape, generator=generator, device=self.device)

    def _checked_round(self, slots: Tensor) -> Tensor:
        """
        Raises:
            ValueError: not slots of the replay.
        """
        own = torch.zeros((0, *slots.shape[1:]), dtype=torch.int64, device=self.replay.obs.device)
        slots = same_kind("round", slots, own, rows=True)
        possible = slots.dim() in (2, 3) and slots.numel() > 0
        if not possible or slots.min() < 0 or slots.max() >= len(self.replay):
            raise ValueError("round holds slots that the replay does not")
        return slots

    def _step_on_slots(self, slots: Tensor) -> tuple[Tensor, ...]:
        report = self.method.training_step(self.replay.gather(slots))
        of_value = () if self.value is None else (self.value.training_step(),)
        return (*(report[name] for name in STEP_REPORT), *of_value)

    def memory_bytes(self) -> int:
        """Bytes kept for the sake of old and present tasks, beside optimiser state."""
        values = self.experiment.begun_values()
        kept = tensor_bytes(tensor for value in values for tensor in value.state_dict().values())
        return self.method.memory_bytes() + self.replay.bytes + kept

    def state(self) -> dict[str, Any]:
        """What is stored and how far the task is; the method's own state is apart."""
        of_value = {} if self.value is None else {"value": self.value.state()}
        return {
            "replay": self.replay.state(),
            "age": self.age,
            "observed": self.observed,
            "first_loss": self.first_loss,
            "round": self.round,
            **of_value,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, once the method has been.

        Raises:
            KeyError, ValueError: it is not of such a learner.
        """
        self.replay.load_state(state["replay"])
        self.age = same_type("age", state["age"], int)
        self.observed = same_type("observed", state["observed"], int)
        if not 0 <= self.observed <= self.age:
            raise ValueError(f"age is {self.age} and observed {self.observed}")
        self.first_loss = same_type("first_loss", state["first_loss"], float | None)
        self.round = None
        if state["round"] is not None:
            self.round = self._checked_round(state["round"])
        if self.method.tasks:
            self._begin_value()
        if self.value is not None:
            self.value.load_state(state["value"])
        self.prepare()
