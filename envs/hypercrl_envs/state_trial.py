"""Whether a task of somebody else's goes on as it did where its state is restored."""

from __future__ import annotations

import warnings

import numpy as np

from hypercrl_envs.checked import TaskFault, calls_into
from hypercrl_envs.task import Task

_STEPS = 3
"""Before the state is taken, and after it."""


def try_state(task: Task, copy: Task) -> None:
    """Take a state of a task in the midst of an episode, give it to a copy, and step both.

    A checkpoint has such a state, and a resumed run begins with it. A warning says so where the
    copy observes or does something else.

    Args:
        task, copy: made with the same parameters.

    Raises:
        TaskFault: a state cannot be taken or restored, so that no run could be resumed.
    """
    generator = np.random.default_rng(0)
    shape = (2 * _STEPS, *task.action_space.shape)
    actions = generator.uniform(-1.0, 1.0, shape).astype(np.float32)
    task.reset(seed=0)
    for action in actions[:_STEPS]:
        moved = task.move(action)
        if moved.terminated or moved.truncated:
            task.reset()
    with calls_into(f"{task.caption}: its state, taken by _get_physics,"):
        state = task.get_state()
    with calls_into(f"{task.caption}: its state, restored by _set_physics,"):
        copy.set_state(state)
    seen = [(task.observation, copy.observation)]
    for action in actions[_STEPS:]:
        moved = task.move(action)
        try:
            seen.append((moved.obs, copy.move(action).obs))
        except TaskFault as error:
            raise TaskFault(f"Where a state is restored and gone on with: {error}") from error
        if moved.terminated or moved.truncated:
            break
    if not all(np.array_equal(own, other) for own, other in seen):  # type: ignore[reportArgumentType]
        warnings.warn(
            f"{task.caption} goes on otherwise where its state is restored, and so will a run that "
            "is resumed: _get_physics is to return all that the next steps depend on, and all "
            "draws are to come from self.np_random, none of them in _observe",
            stacklevel=2,
        )
