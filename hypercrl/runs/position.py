"""Where a run stands."""

from dataclasses import dataclass
from typing import Any

from hypercrl.base.counted import counted
from hypercrl.base.saved import same_type


@dataclass
class Position:
    """`step` steps of task `task` (from 0) are done, and of what the latest one brings with it
    `stage` stages, see `Trainer`; 0: all."""

    task: int = 0
    step: int = 0
    stage: int = 0
    env_steps: int = 0

    def __str__(self) -> str:
        """As messages and reports say it: "after 121 environment steps, in training of task 2"."""
        between = not self.step and self.task
        where = f"after task {self.task}" if between else f"in training of task {self.task + 1}"
        return f"after {counted(self.env_steps, 'environment step')}, {where}"

    @classmethod
    def read(cls, state: dict[str, Any]) -> "Position":
        """From its fields, of whatever run.

        Raises:
            KeyError, TypeError, ValueError: they are no position.
        """
        return cls(**same_type("position", state, cls))

    @classmethod
    def of(cls, state: dict[str, Any], tasks: int, steps: int, stages: int) -> "Position":
        """From its fields, in a run of so many tasks of so many steps of so many stages.

        Raises:
            KeyError, TypeError, ValueError: no such run comes there.
        """
        position = cls.read(state)
        task, step = position.task, position.step
        if not (
            ((0 <= task < tasks and 0 <= step <= steps) or (task, step) == (tasks, 0))
            and 0 <= position.stage < (stages if step else 1)
            and 0 <= position.env_steps <= task * steps + step
        ):
            raise ValueError(f"no run comes to {position!r}")
        return position
