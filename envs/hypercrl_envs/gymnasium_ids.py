"""The tasks under ids of Gymnasium, such as "hypercrl/Push-v0"."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium

from hypercrl_envs.registry import TASKS, make_task
from hypercrl_envs.task import Task

IDS = {
    "push": "hypercrl/Push-v0",
    "slide": "hypercrl/Slide-v0",
    "door": "hypercrl/Door-v0",
    "cheetah": "hypercrl/Cheetah-v0",
    "workbench": "hypercrl/Workbench-v0",
    "double_integrator": "hypercrl/DoubleIntegrator-v0",
    "complex_ode": "hypercrl/ComplexOde-v0",
    "cartpole": "hypercrl/Cartpole-v0",
}
"""Task → its id."""


def register() -> None:
    """Make the ids known to Gymnasium, which has no entry points: whoever imports us has them."""
    for task, id in IDS.items():
        gymnasium.register(
            id,
            entry_point=f"{__name__}:make_env",
            max_episode_steps=TASKS[task].max_episode_steps,
            kwargs={"task": task},
        )


def make_env(task: str, **parameters: Any) -> Task:
    """A task without an end of its own: `gymnasium.make` puts a TimeLimit around it.

    Raises:
        ValueError: see `make_task`.
    """
    env = make_task(task, **parameters)
    env.max_episode_steps = sys.maxsize
    return env
