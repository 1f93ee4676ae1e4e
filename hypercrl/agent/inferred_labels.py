"""Labels that are inferred from prediction errors: no boundary is announced but the first."""

from typing import Any

from hypercrl.agent.belief import Belief
from hypercrl.agent.known_tasks import TaskPosterior, Watched
from hypercrl.agent.task_inference import Change, InferenceConfig, TaskInference
from hypercrl.agent.task_labels import TaskLabels
from hypercrl.methods import Method


class InferredLabels(TaskLabels):
    """The agent's tasks are those that it tells apart; the sequence's numbers are not looked at.

    Args:
        method: see `TaskLabels`.
        config: of the inference.
    """

    def __init__(self, method: Method, config: InferenceConfig) -> None:
        super().__init__(method)
        self.inference = TaskInference(config)
        self._watched: Watched

    @property
    def learns(self) -> bool:
        """Not while it is suspicious either: what may be of a new task would be mixed into the old
        one."""
        return self.keeps and not self.inference.suspicious

    @property
    def keeps(self) -> bool:
        """Not if the agent has gone back to another task."""
        return self.inference.current == self.inference.known - 1

    def announces(self, task: int) -> bool:
        return task == 0

    def begin(self) -> None:
        self.inference.begin_new()

    def new_motion(self) -> None:
        self.inference.learn_more()

    def after_step(self) -> Change | None:
        return self.inference.step(self._watched.squares[0].tolist())

    def training_belief(self, task: int, robots: int) -> Watched:  # noqa: ARG002
        """That the task is the one believed in, with an eye on the errors of all others."""
        beliefs = [self._of_known(known, robots) for known in range(self.method.tasks)]
        scale = self.method.model.target_normaliser.scale
        self._watched = Watched(beliefs, scale, robots, self.inference.current)
        return self._watched

    def belief(self, task: int, robots: int) -> Belief:  # noqa: ARG002
        """That any known task is possible."""
        beliefs = [self._of_known(known, robots) for known in self.inference.settled]
        if len(beliefs) == 1:
            return beliefs[0]
        scale = self.method.model.target_normaliser.scale
        return TaskPosterior(beliefs, scale, robots, self.inference.expected_error)

    def state(self) -> dict[str, Any]:
        return self.inference.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.inference.load_state(state)
