"""What simulators and functions of others return, looked at where it comes in.

Nothing that is refused here reaches a replay, so that the last checkpoint of a run stays good.
"""

from __future__ import annotations

import numbers
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from hypercrl_envs.rendering import RenderingUnavailable

LARGEST = 1e15
"""A larger number is refused as infinity is: a sum of squares of these still fits into float32."""

_SHOWN = 120
"""Characters of a value that a message shows."""


class TaskFault(RuntimeError):
    """A simulator failed, or it or a function of a task returned what nothing can learn from.

    The message names the task, the step and the value.
    """


@contextmanager
def retold(
    kind: type[Exception], where: str, *, but: tuple[type[Exception], ...] = (), end: str = "."
) -> Iterator[None]:
    """Around a call of code that others wrote.

    Args:
        kind: what is raised in place of what it raises. `sys.exit` is such a failure: the run has
            not ended well because its simulator called it.
        where: begins the message, of which `end` is the end.
        but: what is left as it is.

    Example:
        >>> with retold(ValueError, "planner=mine: making it", end=""):
        ...     planner = dict(samples=100)["horizon"]  # a ValueError that says so, and the line
    """
    try:
        yield
    except but:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{where} {told(error)}{end}") from error


def calls_into(where: str) -> AbstractContextManager[None]:
    """Around a call of code of a task that others wrote.

    Raises:
        TaskFault: whatever it raised, told with `where` and the line.
        RenderingUnavailable: is left as it is.
    """
    return retold(TaskFault, where, but=(TaskFault, RenderingUnavailable))


def told(error: BaseException) -> str:
    """An exception as part of a sentence: what was raised, and by which line.

    Of one that says nothing, such as that of a bare `assert`, the line itself is told.
    """
    # Python's own importer names no line that anybody wrote.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename[0] != "<"]
    said = f": {error}" if str(error) else ""
    line = ""
    if frames:
        last = frames[-1]
        code = f": {_shortened(last.line)}" if last.line and not said else ""
        line = f" ({Path(last.filename).name}, line {last.lineno}{code})"
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r}){line}"
    return f"raised {type(error).__name__}{said}{line}"


def array(value: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """`value`, if it is an array of so many finite numbers of any width.

    Args:
        what: names it, with its task and step.

    Raises:
        TaskFault: it is none.
    """
    if not isinstance(value, np.ndarray | np.generic):
        raise TaskFault(f"{what} is no numpy array, but {shown(value)}.")
    if value.dtype.kind not in "fiub":
        raise TaskFault(f"{what} has numbers of dtype {value.dtype}: {shown(value)}.")
    if value.shape != shape:
        raise TaskFault(f"{what} has shape {value.shape} where its space says {shape}.")
    value = np.asarray(value)
    good = np.abs(value.astype(np.float64)) <= LARGEST  # false for NaN
    if not good.all():
        place = np.argwhere(~good)[0]
        index = f"[{', '.join(map(str, place))}]" if len(place) else ""
        number = _refused(value[tuple(place)])
        raise TaskFault(f"{what}{index} is {number}. All of it: {shown(value)}.")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a parameter is one: text is none, and neither is yes or no, which Python counts."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(value: object, what: str) -> float:
    """`value`, if it is one finite number.

    Raises:
        TaskFault: it is none.
    """
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, Tensor | np.ndarray):
        raise TaskFault(
            f"{what} is no number, but {shown(value)}, of shape {tuple(value.shape)}. Make one "
            "number of it: float(reward[0]) where it holds one, a sum with weights where it holds "
            "several aims (for an environment of others in a gymnasium.RewardWrapper)."
        )
    if not isinstance(value, numbers.Real | np.bool_):
        raise TaskFault(f"{what} is no number, but {shown(value)}.")
    if not abs(float(value)) <= LARGEST:
        raise TaskFault(f"{what} is {_refused(value)}.")
    return float(value)


def reset_result(returned: Any, what: str) -> tuple[Any, dict[str, Any]]:
    """What `reset` of a Gymnasium environment returned, if it is (observation, info).

    Raises:
        TaskFault: it is not.
    """
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise TaskFault(f"{what} returned {shown(returned)}, not a pair (observation, info).")
    return returned


def step_result(returned: Any, what: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """What `step` of a Gymnasium environment returned, if it is such a five; reward a number.

    Raises:
        TaskFault: it is not.
    """
    if not (isinstance(returned, tuple) and len(returned) == 5):
        raise TaskFault(
            f"{what} returned {shown(returned)}, not "
            "(observation, reward, terminated, truncated, info)."
        )
    obs, reward, terminated, truncated, info = returned
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, bool | np.bool_):
            raise TaskFault(f"{what} returned {name}={shown(value)}, not True or False.")
    return obs, number(reward, f"{what}: reward"), bool(terminated), bool(truncated), info


def shown(value: object) -> str:
    """A value as a message shows it, shortened."""
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _refused(value: Any) -> str:
    value = float(value)
    return f"{value:g}, which is too large" if np.isfinite(value) else f"{value:g}"
