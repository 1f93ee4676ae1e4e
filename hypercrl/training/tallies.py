"""What a run has counted and measured so far: all that result.json is made of."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import numpy as np

from hypercrl.agent.task_inference import Decision
from hypercrl.base.saved import same_type
from hypercrl.training.durations import Durations
from hypercrl.training.evaluation import QUANTITIES

Matrices = dict[str, list[list[float]]]


def _empty_matrices() -> Matrices:
    return {name: [] for name in QUANTITIES}


def _rows(name: str, saved: Any) -> list[list[float]]:
    """Of an array [rows, N], or of lists, as runs of old have them.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(saved, np.ndarray):
        if saved.ndim != 2 or saved.dtype != np.float64:
            raise ValueError(f"{name} is {saved.dtype} {list(saved.shape)}, no matrix of float64")
        return saved.tolist()
    return same_type(name, saved, list[list[float]])


@dataclass
class Tallies:
    """Saved and loaded by its fields, so that what is counted is what is saved.

    A field is made of JSON values, or a dataclass of them, or a list of a dataclass. Matrices go
    into a checkpoint as arrays: number by number those of 200 tasks took 0.4 s each time.

    Attributes:
        matrix: of each of the `QUANTITIES` of a `Score`, a row of all tasks before the first and
            after each.
        memory_bytes: kept at the end of each task, replay included.
        training_seconds: of the updates in each task.
        seconds: by what they were spent on.
        plan_seconds: of each plan in training.
        memory_seconds: of each step of a memory in training.
        update_seconds: of a training step, the mean of each round of updates.
        updates: training steps.
        decisions: the agent's, where it infers the task.
        boundaries: environment steps at which each task but the first began.
    """

    matrix: Matrices = field(default_factory=_empty_matrices)
    memory_bytes: list[int] = field(default_factory=list)
    training_seconds: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    plan_seconds: Durations = field(default_factory=Durations)
    memory_seconds: Durations = field(default_factory=Durations)
    update_seconds: Durations = field(default_factory=Durations)
    updates: int = 0
    decisions: list[Decision] = field(default_factory=list)
    boundaries: list[int] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds that the block takes, unless it fails."""
        started = time.perf_counter()
        yield
        self.spend(what, time.perf_counter() - started)

    def spend(self, what: str, seconds: float) -> None:
        """Adds seconds spent on something."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def state(self) -> dict[str, Any]:
        """All fields, for a checkpoint."""
        arrays = {
            name: np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
            for name, rows in self.matrix.items()
        }
        return {**asdict(replace(self, matrix={})), "matrix": arrays}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError: a field that was not saved.
            ValueError: one of another type.
        """
        saved = same_type("tallies.matrix", state["matrix"], dict)
        matrix = {name: _rows(f"tallies.matrix.{name}", rows) for name, rows in saved.items()}
        same_type("tallies", {**state, "matrix": {}}, type(self))
        types = get_type_hints(type(self))
        for each in fields(self):
            value: Any = matrix if each.name == "matrix" else state[each.name]
            kind = types[each.name]
            if is_dataclass(kind) and isinstance(kind, type):
                value = kind(**value)
            record = next(filter(is_dataclass, get_args(kind)), None)
            if isinstance(record, type):
                value = [record(**saved) for saved in value]
            setattr(self, each.name, value)
