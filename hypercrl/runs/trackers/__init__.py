"""Copies of a run's metrics: TensorBoard, Weights & Biases, Trackio and MLflow, one file each."""

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from hypercrl.base.dotted import dotted
from hypercrl.base.errors import UserError, first_line

TENSORBOARD = "tensorboard"
LOGGERS = (TENSORBOARD, "wandb", "trackio", "mlflow")
"""What `logger=` takes; all but the first are packages of the same name, and extras of ours."""


class NoTracker(UserError):
    """A tracker that was asked for cannot be had."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Attributes:
        path: its folder.
        config: its configuration, as plain containers.
        identity: what the tracker finds its own run by, empty at first; whatever it puts there
            comes back when the run is resumed.
    """

    path: Path
    config: dict[str, Any]
    identity: dict[str, str]


class Tracker(Protocol):
    """Where records of a run go once they are in a checkpoint, so that none is taken back.

    Attributes:
        anew: it holds nothing of what was sent before, and wants all of it.
    """

    @property
    def anew(self) -> bool: ...

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Take records as metrics.jsonl has them, each once and in order."""
        ...

    def close(self, finished: bool) -> None:
        """Let go of the run, which has reached its end, or is to be resumed."""
        ...


def chosen(logger: Any) -> list[str]:
    """The trackers that `logger=` names, one or several.

    Raises:
        UserError: one that there is not, or whose package is not installed.
    """
    several = isinstance(logger, Sequence) and not isinstance(logger, str)
    names: list[Any] = list(logger) if several else [logger]
    for name in names:
        if name not in LOGGERS:
            near = get_close_matches(str(name), LOGGERS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            said = "null (logger=[] is none)" if name is None else repr(name)
            raise UserError(f"logger is of {', '.join(LOGGERS)}, not {said}.{hint}")
        if name != TENSORBOARD and importlib.util.find_spec(name) is None:
            raise UserError(
                f'logger={name} needs a package; install it with: pip install "hypercrl[{name}]"'
            )
    return list(dict.fromkeys(names))


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Begin the tracker's run, or go on with the one of `run.identity`.

    Raises:
        NoTracker: the tracker cannot be reached, or does not know the run.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    try:
        return module.begin(run)
    except Exception as error:
        raise NoTracker(
            f"logger={name}: no run there ({first_line(error)}). {module.OFFLINE}"
        ) from error


def scalars(kind: str, env_steps: int, task: int, **values: Any) -> dict[str, float]:  # noqa: ARG001
    """Names and numbers of a record, the same in every tracker.

    The numbers of kind "eval" go under the task they are on, all others under their kind; one that
    is not finite, null in metrics.jsonl, is left out.
    """
    place = f"task_{values['on']}" if "on" in values else kind
    return {
        f"{place}/{name}": float(value)
        for name, value in values.items()
        if name != "on" and value is not None and math.isfinite(value)
    }


def flat(config: dict[str, Any]) -> dict[str, str]:
    """A configuration as text under dotted names, for trackers that know no nesting."""
    return {key: str(value) for key, value in dotted(config)}
