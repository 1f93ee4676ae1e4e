"""Where the agent has it from which task it is in: labels given, or an estimate of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from hypercrl.agent.belief import Belief, Ensemble, EpisodeMemory, Told
from hypercrl.agent.task_inference import Change
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.methods import Method


@dataclass(frozen=True)
class Ended:
    """An episode that is over."""

    robot: int
    episode_return: float
    success: bool
    terminated: bool
    length: int


class TaskLabels(ABC):
    """Says when a task begins for the agent, and which tasks it plans for.

    Tasks of the sequence and tasks of the agent, those that its method has networks of, are both
    counted from 0 in the order in which they begin.

    Args:
        method: writes the networks of the agent's tasks.
    """

    def __init__(self, method: Method) -> None:
        self.method = method

    @property
    @abstractmethod
    def learns(self) -> bool:
        """Whether what happens now belongs to the task in training, the latest of the agent's."""

    @property
    @abstractmethod
    def keeps(self) -> bool:
        """Whether it may belong to it, and is kept to be learned from."""

    @abstractmethod
    def announces(self, task: int) -> bool:
        """Whether the agent is told that task `task` of the sequence begins, and the one before it
        ends."""

    @abstractmethod
    def begin(self) -> None:
        """The agent begins a task of its own."""

    @abstractmethod
    def new_motion(self) -> None:
        """The task in training has shown a motion that no model has learned."""

    @abstractmethod
    def after_step(self, ended: Ended | None = None) -> Change | None:
        """Judge the latest planned step.

        Args:
            ended: the episode, if it has ended with this step.

        Returns:
            The agent's task to go on with, if another one.
        """

    @abstractmethod
    def training_belief(self, task: int, robots: int) -> Belief:
        """What the robots that act in task `task` of the sequence in training know from now on."""

    @abstractmethod
    def belief(self, task: int, robots: int) -> Belief:
        """What an agent of so many robots knows as an episode of task `task` of the sequence
        begins."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that the next judgement depends on."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""

    def _of_known(self, task: int, robots: int) -> Belief:
        """That the agent's task is `task`."""
        model, layers = self.method.model, self.method.planner_layers(task)
        if isinstance(model, ContextModel):
            return EpisodeMemory(model, robots, layers)
        return Told(layers(None)) if self.method.members == 1 else Ensemble(layers(None), robots)


class GivenLabels(TaskLabels):
    """Every boundary is announced, and the agent's tasks are those of the sequence."""

    @property
    def learns(self) -> bool:
        return True

    @property
    def keeps(self) -> bool:
        return True

    def announces(self, task: int) -> bool:  # noqa: ARG002
        return True

    def begin(self) -> None:
        """The number of the task says it all."""

    def new_motion(self) -> None:
        """It is of the task that was given."""

    def after_step(self, ended: Ended | None = None) -> None:
        """A given label is not doubted."""

    def training_belief(self, task: int, robots: int) -> Belief:
        return self._of_known(task, robots)

    def belief(self, task: int, robots: int) -> Belief:
        return self._of_known(task, robots)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""
