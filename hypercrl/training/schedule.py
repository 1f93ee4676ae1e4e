"""What happens after which step of a task."""

import random

from hypercrl.config.schema import ProtocolConfig


class Schedule:
    """The protocol as a function of the step.

    What the agent does goes by the age of the task that it learns, which may be a younger one than
    the sequence's where it infers the task. What is measured goes by the step of the sequence's.

    Every round of N robots is N steps; what is due at one of them is due after the round.

    Args:
        protocol: the counts; N divides those of the random and of the planned steps.
    """

    def __init__(self, protocol: ProtocolConfig) -> None:
        self.protocol = protocol
        self.steps = protocol.random_steps + protocol.planned_steps

    def plans(self, age: int) -> bool:
        """Whether the step that follows is planned, not random."""
        return age >= self.protocol.random_steps

    def lingering(self, task: int, step: int) -> float:
        """Probability that an episode that begins after so many steps of task `task`, from 0, is
        still of the one before: it falls to none over the steps of a blurred boundary."""
        blur = self.protocol.blur
        return max(0.0, 1 - step / blur) if task and blur else 0.0

    def ends_random_steps(self, age: int) -> bool:
        """Whether the latest step was the last random one."""
        return age == self.protocol.random_steps

    def updates(self, age: int) -> int:
        """Training steps that are due now, most often none."""
        protocol, planned = self.protocol, age - self.protocol.random_steps
        if planned == 0:
            return protocol.updates if protocol.first_updates is None else protocol.first_updates
        return protocol.updates * self._passed(planned, protocol.update_every)

    def evaluates(self, step: int) -> bool:
        """Whether the tasks so far are evaluated in the midst of one."""
        planned = step - self.protocol.random_steps
        return step < self.steps and self._passed(planned, self.protocol.eval_every) > 0

    def checkpoints(self, step: int) -> bool:
        """Whether a checkpoint is due in the midst of a task, the random steps included."""
        return step < self.steps and self._passed(step, self.protocol.checkpoint_every) > 0

    def evaluated(self, task: int, count: int, seed: int) -> list[int]:
        """Which of the first `count` tasks are evaluated between the beginning and the end.

        All, or the present one, the next one, and a sample of the old ones: enough for forgetting
        and for transfer.

        Args:
            task: the one in training, from 0.
            count: of tasks that there could be, at least `task` + 1.
            seed: of the sample.
        """
        wanted = self.protocol.eval_tasks
        if wanted is None:
            return list(range(count))
        drawn = random.Random(seed).sample(range(task), min(wanted, task))
        return [*sorted(drawn), *range(task, min(task + 2, count))]

    def _passed(self, steps: int, every: int) -> int:
        """Multiples of `every` among the N latest of so many steps."""
        before = max(steps - self.protocol.robots, 0)
        return max(steps, 0) // every - before // every
