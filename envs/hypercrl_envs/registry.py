"""From names and parameters to tasks."""

from __future__ import annotations

import math
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from hypercrl_envs.cartpole import CartpoleTask
from hypercrl_envs.checked import TaskFault, told
from hypercrl_envs.cheetah import CheetahTask
from hypercrl_envs.closing import close
from hypercrl_envs.complex_ode import ComplexOdeTask
from hypercrl_envs.door import DoorTask
from hypercrl_envs.double_integrator import DoubleIntegratorTask
from hypercrl_envs.gym_task import GymTask
from hypercrl_envs.names import known_name
from hypercrl_envs.parameters import parameters_of
from hypercrl_envs.plugins import plugged_in, whole
from hypercrl_envs.push import PushTask
from hypercrl_envs.rendering import RenderingUnavailable
from hypercrl_envs.slide import SlideTask
from hypercrl_envs.task import PictureOptions, Task
from hypercrl_envs.workbench import WorkbenchTask

TASKS: dict[str, type[Task]] = {
    "push": PushTask,
    "door": DoorTask,
    "cheetah": CheetahTask,
    "gym": GymTask,
    "slide": SlideTask,
    "workbench": WorkbenchTask,
    "double_integrator": DoubleIntegratorTask,
    "complex_ode": ComplexOdeTask,
    "cartpole": CartpoleTask,
}

PICTURE = frozenset(PictureOptions.__annotations__)
"""What every task takes beside its own parameters."""


def find_task(name: str) -> type[Task]:
    """The class of the task of that name, see `make_task`.

    Raises:
        ValueError: there is none, or what is found is no task.
    """
    if name in TASKS:
        return TASKS[name]
    found = plugged_in(name, "tasks", TASKS, "task")
    if (fault := whole(found, Task)) is not None:
        raise ValueError(f"task {name!r}: {fault}")
    if missing := ", ".join(sorted(PICTURE - parameters_of(found).keys())):
        raise ValueError(
            f"task {name!r}: let {found.__name__}.__init__ take {missing}, or **picture, and hand "
            "them on to super().__init__"
        )
    return found


def make_task(task: str, render_mode: str | None = None, **parameters: Any) -> Task:
    """Make one task.

    Args:
        task: a key of `TASKS`, what an installed package calls one in its entry points
            "hypercrl.tasks", or "package.module:Class".
        render_mode: "rgb_array" to use `render`, else None.
        parameters: keyword arguments of the task's class, such as the `engine` it runs in.

    Raises:
        ValueError: unknown task, engine or parameter, or a value that the task rejects; the
            message names the nearest valid name.
        RenderingUnavailable: it cannot be made with `render_mode`.
    """
    task_class = find_task(task)
    accepted = parameters_of(task_class)
    del accepted["render_mode"]
    for name in parameters:
        known_name(name, accepted, f"parameter of task {task!r}")
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and name not in parameters:
            raise ValueError(f"task {task!r} needs the parameter {name!r}")
    try:
        made = task_class(render_mode=render_mode, **parameters)
    except (TypeError, OverflowError) as error:  # of a text in place of a number, say
        given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        raise ValueError(f"task {task!r} cannot be made with {given}: {error}") from error
    except (ValueError, RenderingUnavailable):
        raise
    except (Exception, SystemExit) as error:
        if task in TASKS:
            raise
        raise ValueError(f"task {task!r} cannot be made: it {told(error)}") from error
    if (fault := _unfit(made)) is not None:
        with suppress(TaskFault):
            close(made)
        raise ValueError(f"task {task!r}: {fault}")
    return made


def _unfit(task: Task) -> str | None:
    """Why an agent cannot act in a task that has been made; None: it can."""
    if not hasattr(task, "camera"):
        return f"let {type(task).__name__}.__init__ call super().__init__(**picture)"
    names = ("observation_space", "action_space", "max_episode_steps", "exploration", "caption")
    if missing := ", ".join(name for name in names if not hasattr(task, name)):
        return f"{type(task).__name__} does not set {missing}"
    for name in ("observation_space", "action_space"):
        space = getattr(task, name)
        if not (isinstance(space, Box) and len(space.shape) == 1 and space.shape[0]):
            return f"its {name} is {space}, and is to be a Box of one dimension"
    actions, bias = task.action_space, task.exploration
    if (actions.low != -1).any() or (actions.high != 1).any():
        return f"its actions are in {actions}, and are to be from -1 to 1: scale them in _advance"
    if not len(bias.bias_low) == len(bias.bias_high) == actions.shape[0]:
        return f"its exploration is of {len(bias.bias_low)} actions, of {actions.shape[0]}"
    low, high = np.array([bias.bias_low, bias.bias_high], np.float64)
    if not (np.isfinite([low, high]).all() and (low <= high).all()):
        return f"its exploration goes from {low.tolist()} to {high.tolist()}; low is to be ≤ high"
    if not (isinstance(task.max_episode_steps, int) and task.max_episode_steps >= 1):
        return f"max_episode_steps is a number of steps from 1 on, not {task.max_episode_steps!r}"
    if not isinstance(task.caption, str):
        return f"caption is a text, not {task.caption!r}"
    if not (isinstance(task.control_rate, Real) and 0 < task.control_rate < math.inf):
        return f"control_rate is a number of steps in a second, not {task.control_rate!r}"
    return None
