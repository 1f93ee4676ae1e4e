"""The end of tasks: a `close` of somebody else's may raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

from hypercrl_envs.checked import TaskFault, calls_into
from hypercrl_envs.task import Task


class Closes(Protocol):
    """A fleet, or what has one."""

    def close(self) -> None: ...


def close(*tasks: Task) -> None:
    """Close them all, whatever one of them raises.

    Raises:
        TaskFault: a `close` raised, the first of several.

    Example:
        >>> close(env)  # "point, close raised OSError: …" where env.close() would raise it
    """
    faults: list[TaskFault] = []
    for task in tasks:
        try:
            with calls_into(f"{getattr(task, 'caption', type(task).__name__)}, close"):
                task.close()
        except TaskFault as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


@contextmanager
def closed(whole: Closes | Task) -> Iterator[None]:
    """Close it at the end of the block. What the block raises is not hidden by what closing does.

    Raises:
        TaskFault: the block has come to its end, and a `close` raised.
    """
    end = partial(close, whole) if isinstance(whole, Task) else whole.close
    try:
        yield
    except BaseException:
        with suppress(TaskFault):
            end()
        raise
    end()
