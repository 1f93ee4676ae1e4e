"""The learning half of the loop: what the agent lives through is stored, and trained on."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.errors import UserError
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.replay import Replay
from hypercrl.replay.transitions import Batch
from hypercrl.training.experiment import Experiment

STEP_REPORT = ("loss", "regulariser", "gradient_norm")


class Learner:
    """Takes the method through its tasks: their begin, rounds of training steps, their end.

    Args:
        experiment: the parts.

    Attributes:
        replay: transitions of the task in training, or since the agent has gone back to another.
        age: steps that the task in training is old: the step of the sequence's task, unless the
            agent infers the task and has not noticed, or has begun one in between.
        observed: of these, how many the method has taken note of.
        first_loss: of the run's first training step.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.method = experiment.method
        self.labels = experiment.labels
        self.model = experiment.model
        self.device = experiment.device
        self.streams = experiment.streams
        self.batch_size = experiment.config.protocol.batch_size
        self.replay = Replay(
            experiment.config.protocol.replay_capacity,
            self.model.obs_size,
            self.model.action_size,
            self.device,
        )
        self.age = 0
        self.observed = 0
        self.first_loss: float | None = None
        self._training_step: Callable[[Tensor], tuple[Tensor, ...]]
        self.prepare()

    def prepare(self) -> None:
        """Make a training step of the method as it is now; on CUDA one graph."""
        self._training_step = self._step_on_slots
        if self.device.type == "cuda":
            self._training_step = CapturedFunction(self._step_on_slots, [self.method.sampler])

    def begin_task(self) -> None:
        """What comes now is a task of its own."""
        self.method.begin_task()
        self.replay.clear()
        self.age = self.observed = 0
        self.labels.begin()
        self.prepare()

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Store one step, [O], [A], [O]."""
        self.replay.add(obs, action, next_obs)
        self.age += 1

    def begin_with(self, episodes: Iterable[Batch]) -> None:
        """Store episodes that were recorded elsewhere as the task's first steps."""
        for episode in episodes:
            self.replay.begin_episode()
            for transition in zip(episode.obs, episode.action, episode.next_obs, strict=True):
                self.add(*transition)

    def fit_normalisers(self) -> None:
        """Fit the scales of what has moved in the random steps."""
        self.model.fit_normalisers(self.replay.contents())

    def train(self, steps: int, caption: str) -> dict[str, float]:
        """So many training steps; returns the report of the last one.

        Args:
            steps: how many.
            caption: of the task, for the message.

        Raises:
            UserError: there is no window for a memory in the replay.
        """
        self._follow()
        report: tuple[Tensor, ...] = ()
        for slots in self._draw_batches(steps, caption):
            report = self._training_step(slots)
            if self.first_loss is None:
                self.first_loss = float(report[0])
        self.observe()
        return dict(zip(STEP_REPORT, (float(value) for value in report), strict=True))

    def observe(self) -> None:
        """Show the method what has come since it was last shown something."""
        new = self.age - self.observed
        if new and self.labels.learns:
            self.method.observe(self.replay.latest(new))
        self.observed = self.age

    def end_task(self) -> None:
        """The task in training is over."""
        self.method.end_task(self.replay.contents())

    def go_back(self) -> None:
        """What comes now is of another task than the one in training."""
        self.replay.clear()
        self.observed = self.age

    def _follow(self) -> None:
        """Fit the scales of what has begun to move since the random steps."""
        targets = self.model.target_normaliser
        before = targets.moving()
        self.method.follow(self.replay.latest(len(self.replay)), self.age - self.observed)
        if not torch.equal(targets.moving(), before):
            self.labels.new_motion()

    def _draw_batches(self, count: int, caption: str) -> Tensor:
        """Slots of `count` batches: [count, N], or of windows of episodes, [count, N, L]."""
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
        shape = (count, self.batch_size)
        return torch.randint(len(self.replay), shape, generator=generator, device=self.device)

    def _step_on_slots(self, slots: Tensor) -> tuple[Tensor, ...]:
        report = self.method.training_step(self.replay.gather(slots))
        return tuple(report[name] for name in STEP_REPORT)

    def state(self) -> dict[str, Any]:
        """What is stored and how far the task is; the method's own state is apart."""
        return {
            "replay": self.replay.state(),
            "age": self.age,
            "observed": self.observed,
            "first_loss": self.first_loss,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, once the method has been."""
        self.replay.load_state(state["replay"])
        self.age, self.observed = state["age"], state["observed"]
        self.first_loss = state["first_loss"]
        self.prepare()
