"""A run folder, read back: what a trainer wrote, checked once and typed."""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import from_json
from hypercrl.config.overrides import in_shell
from hypercrl.config.stored import parse_stored
from hypercrl.metrics import Array, as_matrix, can_succeed
from hypercrl.runs.checkpoint import FAILURES, read_part
from hypercrl.runs.position import Position
from hypercrl.runs.run_folder import FAILURE, LATEST, SCHEMA, RunFolder

MOST_STEPS = 10**15
MOST_TASKS = 10_000
"""Beyond these a record is no record of a run."""
BIG = 10**300
"""Whole numbers below it are floats too."""


@dataclass(frozen=True)
class Result:
    """The numbers of a run that reached its end; N tasks.

    Attributes:
        tasks: N captions.
        scores: mean episode return, [N + 1, N]; row 0 is the untrained agent. NaN: failed.
        success: share of evaluation episodes that end in success, [N + 1, N].
        prediction_error: RMS open-loop error after `prediction_horizon` steps on held-out data, in
            units of the observation, [N + 1, N].
        seconds_by: seconds spent per activity, out of `seconds`.
        plan_milliseconds, update_milliseconds: medians.
        extra_updates: further updates that the method took beside the protocol's.
        memory_bytes: bytes that method and replay keep after each task, N.
        training_seconds: seconds of updates during each task, N; empty in results of old.
        memory_state_bytes: of one robot's memory of its episode; 0 without one.
        memory_step_milliseconds: median of a memory's update in a control step.
        task_inference: decisions, precision, recall and delay of an agent that infers the task, see
            `hypercrl.agent.task_inference.score_decisions`; empty where the task is given.
        git: revision.
        without_success: tasks (from 1) in which nothing counts as success, see
            `hypercrl.metrics.can_succeed`.
    """

    tasks: tuple[str, ...]
    scores: Array
    success: Array
    prediction_error: Array
    prediction_horizon: int
    seconds: float
    seconds_by: dict[str, float]
    plans: int
    plan_milliseconds: float
    updates: int
    extra_updates: int
    update_milliseconds: float
    env_steps: int
    memory_bytes: tuple[int, ...]
    training_seconds: tuple[float, ...]
    memory_state_bytes: int
    memory_step_milliseconds: float
    task_inference: dict[str, float]
    parameters: int
    git: str
    machine: str
    without_success: tuple[int, ...] = ()

    @property
    def measured(self) -> NDArray[np.bool_]:
        """[N + 1, N], whether a task was evaluated then, see `protocol.eval_tasks`."""
        parts = (self.scores, self.success, self.prediction_error)
        return ~np.logical_and.reduce([np.isnan(part) for part in parts])


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        method: and, where there is one, the memory beside it, and that the task is inferred.
        config: what config.yaml says, as plain containers.
        config_text: config.yaml as it stands.
        result: None while the run is in progress, or when it crashed.
        failure: why `hypercrl bench` gave it up, if it did.
        saved: where the latest checkpoint of a run without a result goes on; None: not known.
        events: the lines of metrics.jsonl by kind, in the order in which they were written.
        variant: settings that tell it from other runs of its method beside it: "beta=0.5".
    """

    path: Path
    method: str
    env: str
    preset: str
    seed: int
    config: dict[str, Any]
    config_text: str
    result: Result | None
    failure: str | None
    events: dict[str, list[dict[str, Any]]]
    variant: str = ""
    saved: Position | None = None

    @property
    def contender(self) -> str:
        """What is compared with others: runs that differ in their seeds alone are one."""
        return ", ".join(filter(None, (self.method, self.variant)))

    @property
    def label(self) -> str:
        """What tells this run from others in one line."""
        return f"{self.contender} on {self.env} ({self.preset}), seed {self.seed}"

    def evaluations(self, quantity: str, on: int) -> dict[int, float]:
        """Environment steps → `quantity` of the evaluations on task `on` (from 1).

        At a boundary between tasks two evaluations can share a step; the later one counts.
        """
        return {
            e["env_steps"]: _number(e.get(quantity))
            for e in self.events.get("eval", [])
            if e["on"] == on
        }

    def own_curve(self, task: int, quantity: str, *, beginning: bool = True) -> list[float]:
        """`quantity` on task `task` (from 1) over its own training, in the order of time.

        With `beginning` that of the agent before it counts too; of the first task there is none,
        which is evaluated for the first time after its random steps. Empty where nothing was
        trained.
        """
        if task > len(self.spans):
            return []
        start, end = self.spans[task - 1]
        return [
            value
            for step, value in sorted(self.evaluations(quantity, task).items())
            if (start <= step if beginning else start < step) and step <= end
        ]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First and last environment step of each task trained so far."""
        ends: dict[int, int] = defaultdict(int)
        for events in self.events.values():
            for event in events:
                ends[event["task"]] = max(ends[event["task"]], event["env_steps"])
        bounds = [0, *(ends[task] for task in sorted(ends) if task >= 1)]
        return list(pairwise(bounds))

    @cached_property
    def tasks_evaluated(self) -> int:
        """Number of tasks that evaluations speak of."""
        return max((e["on"] for e in self.events.get("eval", [])), default=0)


def load_run(path: Path) -> Run:
    """Read the folder that `hypercrl train` wrote.

    A missing result.json means a run in progress. The last line of metrics.jsonl is left out when
    it was cut short, as in a run that is being written or was killed.

    Raises:
        UserError: there is no such folder, it is not a run folder, or a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"There is no run at {path}. Give a folder that `hypercrl train` wrote.")
    for name in ("config.yaml", "metrics.jsonl"):
        if not (path / name).is_file():
            raise UserError(
                f"{path} is not a run folder: it has no {name}. "
                "Give the run_dir of a `hypercrl train`, or a folder with such runs in it."
            )
    config, config_text = parse_stored(path / "config.yaml")
    written = _read_result(path / "result.json")
    identity = config if written is None else written
    return Run(
        path=path,
        method=_method(identity, path),
        env=_identity(identity, "env", path),
        preset=_identity(identity, "preset", path),
        seed=_seed(identity, path),
        config=config,
        config_text=config_text,
        result=None if written is None else _result(written, path / "result.json"),
        failure=_read_failure(path) if written is None else None,
        events=_read_events(path / "metrics.jsonl"),
        saved=_saved(path) if written is None else None,
    )


def _saved(path: Path) -> Position | None:
    try:
        return Position.read(read_part(RunFolder(path).checkpoint_path(LATEST), "position"))
    except FAILURES:  # whether it can be gone on with is not for a report to say
        return None


def _method(identity: dict[str, Any], path: Path) -> str:
    """What stands for its method: "hnet", "hnet + gru", "hnet + gru, task inferred"."""
    name = _identity(identity, "method", path)
    memory = _identity({"memory": "none", **identity}, "memory", path)
    name += "" if memory == "none" else f" + {memory}"
    return name + (", task inferred" if identity.get("task_id") == "inferred" else "")


def _read_failure(path: Path) -> str | None:
    file = path / FAILURE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _identity(values: dict[str, Any], key: str, path: Path) -> str:
    value = values.get(key)
    if isinstance(value, dict):  # a config group; its `name` is what was chosen
        value = value.get("name")
    if value is None:
        raise UserError(f"{path} does not say its {key}; it was written by another version.")
    return str(value)


def _seed(identity: dict[str, Any], path: Path) -> int:
    try:
        return int(_identity(identity, "seed", path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: its seed is no whole number.") from error


def _read_result(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        written = from_json(file.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}). Write it anew from the last checkpoint: hypercrl train "
            f"{in_shell('resume', file.parent)}; or move it away to see the curves."
        ) from error
    if not isinstance(written, dict) or written.get("schema") != SCHEMA:
        found = written.get("schema") if isinstance(written, dict) else None
        raise UserError(
            f"{file} has schema {found}, and this version reads {SCHEMA}. "
            "Report it with the version of hypercrl that wrote it."
        )
    return written


def _result(written: dict[str, Any], file: Path) -> Result:
    try:
        result = Result(
            tasks=tuple(map(str, written["tasks"])),
            scores=as_matrix(written["scores"]),
            success=as_matrix(written["success"]),
            prediction_error=as_matrix(written["prediction_error"]),
            prediction_horizon=int(written["prediction_horizon"]),
            seconds=_number(written["seconds"]),
            seconds_by={k: _number(v) for k, v in written["seconds_by"].items()},
            plans=int(written["plans"]),
            plan_milliseconds=_number(written["plan_milliseconds"]),
            updates=int(written["updates"]),
            extra_updates=int(written.get("extra_updates", 0)),
            update_milliseconds=_number(written["update_milliseconds"]),
            env_steps=int(written["env_steps"]),
            memory_bytes=tuple(map(int, written["memory_bytes"])),
            training_seconds=tuple(map(_number, written.get("training_seconds", []))),
            memory_state_bytes=int(written.get("memory_state_bytes", 0)),
            memory_step_milliseconds=_number(written.get("memory_step_milliseconds")),
            task_inference={k: _number(v) for k, v in written.get("task_inference", {}).items()},
            parameters=int(written["parameters"]),
            git=str(written["git"]),
            machine=str(written["machine"]),
            without_success=_without_success(written),
        )
    except KeyError as error:
        raise UserError(f"{file} lacks {error}; it was written by another version.") from error
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}.") from error
    shapes = {result.scores.shape, result.success.shape, result.prediction_error.shape}
    if shapes != {(len(result.tasks) + 1, len(result.tasks))}:
        raise UserError(f"{file} is damaged: {len(result.tasks)} tasks, but matrices {shapes}.")
    return result


def _without_success(written: dict[str, Any]) -> tuple[int, ...]:
    """See `Result`; of results of old none is known."""
    told = can_succeed(written["success"], written.get("goal_distance", written["scores"]))
    return tuple(int(task) + 1 for task in np.flatnonzero(~told))


def _read_events(file: Path) -> dict[str, list[dict[str, Any]]]:
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    # Bytes, because a line can be cut inside a character.
    *lines, unfinished = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        event = _event(line)
        if event is None:
            raise UserError(
                f"Line {number} of {file} is damaged: delete that line, and report again."
            )
        events[event["kind"]].append(event)
    if (event := _event(unfinished)) is not None:
        events[event["kind"]].append(event)
    return dict(events)


def _event(line: bytes) -> dict[str, Any] | None:
    """The event that a line holds; None when the line is not a whole event."""
    try:
        event = from_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    counts = ["env_steps", "task", *(["on"] if event["kind"] == "eval" else [])]
    if not all(type(event.get(key)) is int for key in counts):
        return None
    if not 0 <= event["env_steps"] <= MOST_STEPS or not 1 <= event["task"] <= MOST_TASKS:
        return None
    if not 1 <= event.get("on", 1) <= MOST_TASKS:
        return None
    figures = (value for key, value in event.items() if key != "kind")
    return event if all(map(_is_figure, figures)) else None


def _is_figure(value: Any) -> bool:
    """A number that a float holds, yes or no, or nothing."""
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and abs(value) < BIG


def _number(value: Any) -> float:
    """JSON has no NaN, so that a failed number is null."""
    return math.nan if value is None else float(np.float64(value))
