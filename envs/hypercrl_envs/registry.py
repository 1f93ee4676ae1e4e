"""From names and parameters to tasks."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from hypercrl_envs.push import PushTask
from hypercrl_envs.task import Task

TASKS: dict[str, dict[str, type[Task]]] = {
    "push": {"mujoco": PushTask},
}
"""Task name → engine → class."""


def make_task(
    task: str, engine: str = "mujoco", render_mode: str | None = None, **parameters: Any
) -> Task:
    """Make one task.

    Args:
        task: a key of `TASKS`.
        engine: physics engine.
        render_mode: "rgb_array" to use `render`, else None.
        parameters: keyword arguments of the task's class.

    Raises:
        ValueError: unknown task, engine or parameter, or a value that the task rejects; the
            message names the nearest valid name.
    """
    engines = TASKS[_known(task, TASKS, "task")]
    task_class = engines[_known(engine, engines, f"engine for task {task!r}")]
    accepted = inspect.signature(task_class).parameters.keys() - {"render_mode"}
    for name in parameters:
        _known(name, accepted, f"parameter of task {task!r}")
    return task_class(render_mode=render_mode, **parameters)


def _known(name: str, valid: Iterable[str], kind: str) -> str:
    names = sorted(valid)
    if name in names:
        return name
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"unknown {kind}: {name!r}; {hint}valid: {', '.join(names)}")
