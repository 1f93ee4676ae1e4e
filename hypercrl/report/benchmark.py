"""Runs that can be compared: the same tasks and preset, grouped by method and settings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hypercrl.base.dotted import dotted
from hypercrl.metrics import (
    Array,
    Mask,
    auc_forward_transfer,
    continual_world_forward_transfer,
    just_trained,
    normalise,
)
from hypercrl.report.formats import decimals
from hypercrl.report.runs import Result, Run

REFERENCE = "single"
"""The method that normalised scores are relative to: each task learnt by an agent of its own."""

_NO_DIFFERENCE = {
    *("seed", "run_dir", "device", "resume", "trust", "threads"),
    *("simulators", "logger", "checkpoint_every", "watch"),
}
"""Config keys in which the seeds of one method may differ."""
_OF_TASKS = ("num_tasks", "order", "prediction_horizon")
"""Settings of `protocol` that say which tasks are learned, and what is measured of them."""
_OF_METHODS = ("method.", "memory.", "context.", "inference.", "task_id", "planner.dynamics")
"""What makes a method another one; in all else methods side by side are to be alike."""


@dataclass(frozen=True)
class Benchmark:
    """All runs on one task sequence with one preset.

    Attributes:
        sequence: what tells it from others of this name and preset: "order=[2, 1]".
        repeats: runs with settings and seed of one of `runs`, such as copies of it. They say
            nothing that it does not say, and do not count.
    """

    env: str
    preset: str
    runs: tuple[Run, ...]
    sequence: str = ""
    repeats: tuple[Run, ...] = ()

    @property
    def title(self) -> str:
        return " · ".join(filter(None, (self.env, self.preset, self.sequence)))

    @cached_property
    def methods(self) -> dict[str, tuple[Run, ...]]:
        """Method, and settings if it is there with others too → its runs, in the order given."""
        names = dict.fromkeys(run.contender for run in self.runs)
        return {name: tuple(r for r in self.runs if r.contender == name) for name in names}

    @cached_property
    def references(self) -> tuple[Run, ...]:
        """Runs of the reference method, whatever its settings."""
        return tuple(run for run in self.runs if run.method == REFERENCE)

    @property
    def finished(self) -> bool:
        """Whether any run has ended, so that its tasks are known by name."""
        return any(run.result is not None for run in self.runs)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Captions; plain numbers, for one task at least, while no run has ended."""
        for run in self.runs:
            if run.result is not None:
                return run.result.tasks
        return tuple(
            f"task {j + 1}" for j in range(max(1, *(r.tasks_evaluated for r in self.runs)))
        )

    @cached_property
    def error_name(self) -> str:
        """“10-step error”, with the horizon that was used."""
        for run in self.runs:
            if run.result is not None:
                return f"{run.result.prediction_horizon}-step error"
        return "prediction error"

    def results(self, method: str) -> list[Result]:
        """Results of that method's finished runs, one per seed."""
        return [r.result for r in self.methods.get(method, ()) if r.result is not None]

    def matrices(self, method: str, quantity: str) -> Array:
        """`scores`, `success` or `prediction_error` of every seed that ended, [S, N + 1, N].

        A seed that was given up is NaN throughout: it counts, and is not averaged away.
        """
        return self._matrices(self.methods.get(method, ()), quantity)

    def _matrices(self, runs: Sequence[Run], quantity: str) -> Array:
        n = len(self.tasks)
        matrices = [getattr(run.result, quantity) for run in runs if run.result is not None]
        failed = sum(run.failure is not None for run in runs)
        matrices += [np.full((n + 1, n), np.nan)] * failed
        return np.stack(matrices) if matrices else np.empty((0, n + 1, n))

    @cached_property
    def succeeds(self) -> Mask:
        """Tasks in which anything counts as success, bool [N]: means of success are over these."""
        without = [set(run.result.without_success) for run in self.runs if run.result is not None]
        never = set.intersection(*without) if without else set()
        return np.array([task not in never for task in range(1, len(self.tasks) + 1)])

    @property
    def by_return(self) -> bool:
        """Whether nothing counts as success in any task, so that return tells how good agents are.

        A task without a distance whose episodes were said to succeed all the same has success.
        """
        return not self.succeeds.any()

    @property
    def outcome_name(self) -> str:
        """What agents are compared by: success, or where there is none `return_name`."""
        return self.return_name if self.by_return else "success"

    def outcome(self, method: str) -> Array:
        """`outcome_name` of every seed that ended, [S, N + 1, N], see `matrices`."""
        return self.returns(method) if self.by_return else self.matrices(method, "success")

    @property
    def counted(self) -> Mask | None:
        """Tasks that the mean of `outcome` is over, bool [N]; None: all of them."""
        return None if self.by_return else self.succeeds

    @property
    def return_name(self) -> str:
        """“normalised return” where there is a scale, else “return”."""
        return "return" if self.normalise is None else "normalised return"

    def returns(self, method: str) -> Array:
        """`return_name` of every seed that ended, [S, N + 1, N], see `matrices`."""
        scores = self.matrices(method, "scores")
        return scores if self.normalise is None else self.normalise(scores)

    @cached_property
    def return_decimals(self) -> int:
        """Decimals with which the largest return of all methods shows three digits."""
        if self.normalise is not None:
            return 2
        return decimals(np.concatenate([self.returns(m).ravel() for m in self.methods]))

    @cached_property
    def normalise(self) -> Callable[[Array], Array] | None:
        """Turns returns [..., N] into normalised ones; None where there is no scale for it.

        0 is the untrained agent and 1 the agent of that task alone, each the mean over the seeds
        of the reference method.
        """
        return self._scale[0]

    def auc_forward_transfer(self, method: str) -> float:
        """Mean over seeds and tasks but the first of `metrics.auc_forward_transfer`, on success.

        Tasks in which nothing counts as success have no part in it.
        Against the mean curve of the reference method, whose agent of a task begins untrained; NaN
        without one, where a seed was given up, or where curves differ in length, because the runs
        were evaluated at other times.
        """
        return self._forward_transfer(method, auc_forward_transfer, first=2, beginning=True)

    def continual_world_forward_transfer(self, method: str) -> float:
        """The same of `metrics.continual_world_forward_transfer`, over all tasks.

        As in its authors' program, evaluations after the task's first step alone count.
        """
        transfer = continual_world_forward_transfer
        return self._forward_transfer(method, transfer, first=1, beginning=False)

    def _forward_transfer(
        self,
        method: str,
        transfer: Callable[[ArrayLike, ArrayLike], float],
        *,
        first: int,
        beginning: bool,
    ) -> float:
        mine = self.methods.get(method, ())
        if any(run.failure is not None for run in (*self.references, *mine)):
            return np.nan
        values = []
        for task in range(first, len(self.tasks) + 1):
            if not self.succeeds[task - 1]:
                continue
            single, own = (
                [_curve(run, run.result, task, beginning) for run in runs if run.result is not None]
                for runs in (self.references, mine)
            )
            for curve in own:
                if not single or {len(s) for s in single} != {len(curve)} or len(curve) < 2:
                    return np.nan
                values.append(transfer(curve, np.mean(single, 0)))
        return float(np.mean(values)) if values else np.nan

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        notes = [self._scale[1]] if self._scale[1] else []
        variants = dict.fromkeys(run.contender for run in self.references)
        if len(variants) > 1:
            notes.append(
                f"What is relative to {REFERENCE} is so to the mean of {'; '.join(variants)}."
            )
        if never := [task for task, told in enumerate(self.succeeds, 1) if not told]:
            left_out = "" if self.by_return else " and no mean of success is over them"
            notes.append(
                f"Task {_listed(never)}: no distance is given, so that nothing counts as success"
                f"{left_out}; look at the return."
            )
        notes += _unlike(self.runs)
        for method, runs in self.methods.items():
            notes += [f"{method}: {note}" for note in (*self._left_out(runs), *_notes(runs))]
        return notes

    def _left_out(self, runs: Sequence[Run]) -> Iterator[str]:
        """Which repeats of these do not count."""
        for run in runs:
            if others := [other.path for other in self.repeats if _repeats(other, run)]:
                yield (
                    f"seed {run.seed} is there {1 + len(others)} times with the same settings and "
                    f"counts once, by {run.path}; left out: {_listed(others)}."
                )

    @cached_property
    def _scale(self) -> tuple[Callable[[Array], Array] | None, str]:
        references = self._matrices(self.references, "scores")
        if not len(references):
            return None, f"No normalised return: there is no finished run of method {REFERENCE}."
        random = references[:, 0].mean(0)
        single = np.mean([just_trained(matrix) for matrix in references], 0)
        try:
            normalise(random, random, single)
        except ValueError as error:
            return None, f"No normalised return: {error}."
        return lambda scores: normalise(scores, random, single), ""


def _curve(run: Run, result: Result, task: int, beginning: bool) -> list[float]:
    """Success on task `task` (from 1) over its training.

    An agent of that task alone is untrained at its beginning; what the reference method was
    evaluated with there is the agent of the task before.
    """
    curve = run.own_curve(task, "success", beginning=beginning)
    if beginning and curve and run.method == REFERENCE:
        return [float(result.success[0, task - 1]), *curve[1:]]
    return curve


def group(runs: Sequence[Run]) -> list[Benchmark]:
    """One benchmark for each env and preset, in the order in which they were given.

    Where runs of one pair have other tasks, or another prediction horizon, one for each of these,
    as in a grid over `protocol.order`. A seed counts once, see `Benchmark.repeats`.
    """
    benchmarks = []
    for env, preset in dict.fromkeys((run.env, run.preset) for run in runs):
        alike = _by_tasks([run for run in runs if (run.env, run.preset) == (env, preset)])
        names = _names([own[0] for own in alike]) if len(alike) > 1 else [""]
        for own, name in zip(alike, names, strict=True):
            counted, repeats = _once(_told_apart(own))
            benchmarks.append(Benchmark(env, preset, counted, name, repeats))
    return benchmarks


def _once(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Those that count, and repeats of them; of runs with one seed the one that came furthest.

    One that was given up came further than one in progress: how that ends is known.
    """
    counted: list[Run] = []
    for run in sorted(runs, key=lambda run: (run.result is None, run.failure is None)):
        if not any(_repeats(run, other) for other in counted):
            counted.append(run)
    there = {run.path for run in counted}
    return (
        tuple(run for run in runs if run.path in there),
        tuple(run for run in runs if run.path not in there),
    )


def _repeats(run: Run, other: Run) -> bool:
    """Whether two runs have one seed, and one value of every setting that both know."""
    if (run.contender, run.seed) != (other.contender, other.seed):
        return False
    mine, its = _flat(run.config), _flat(other.config)
    return all(repr(mine[key]) == repr(its[key]) for key in mine.keys() & its.keys())


def _by_tasks(runs: Sequence[Run]) -> list[list[Run]]:
    """Those whose matrices are of the same. What has not ended goes by its settings, to those that
    have and share these."""
    found: dict[Any, list[Run]] = {}
    by_settings: dict[str, Any] = {}
    for run in sorted(runs, key=lambda run: run.result is None):
        settings = repr((_of_tasks(run), run.config.get("env")))
        key = by_settings.get(settings, settings)
        if run.result is not None:
            key = by_settings[settings] = run.result.tasks, run.result.prediction_horizon
        found.setdefault(key, []).append(run)
    place = {id(run): number for number, run in enumerate(runs)}
    alike = [sorted(own, key=lambda run: place[id(run)]) for own in found.values()]
    return sorted(alike, key=lambda own: place[id(own[0])])


def _of_tasks(run: Run) -> dict[str, Any]:
    protocol = run.config.get("protocol")
    return {key: protocol.get(key) for key in _OF_TASKS} if isinstance(protocol, dict) else {}


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells the sequences of these runs apart: settings, or else their places."""
    settings = [_of_tasks(run) for run in runs]
    differing = _differing(settings)
    names = [
        ", ".join(f"{key}={_text(own.get(key))}" for key in _OF_TASKS if key in differing)
        for own in settings
    ]
    if len(set(names)) == len(names):
        return names
    return [f"sequence {number}" for number in range(1, len(runs) + 1)]


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    """What is to be known of the runs of one method."""
    seeds = [run.seed for run in runs]
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        yield f"seed {_listed(repeated)} is there more than once, with other settings each time."
    if differing := _differing([_flat(run.config) for run in runs]):
        yield (
            f"its runs differ in {_listed(map(_setting, differing))}, and are averaged as if they "
            "were seeds."
        )
    finished = [(run.seed, run.result) for run in runs if run.result is not None]
    if failed := [seed for seed, result in finished if _has_failed(result)]:
        yield f"seed {_listed(failed)} has failed cells; what depends on them is undefined (—)."
    if unknown := [seed for seed, result in finished if _lacks(result)]:
        yield (
            f"seed {_listed(unknown)} has prediction errors that are missing (—): no held-out "
            "episode was long enough, or the model, as one that is untrained may do, predicted "
            "numbers beyond all bounds."
        )
    for run in runs:
        if run.failure is not None:
            yield (
                f"seed {run.seed} was given up ({run.failure}); what depends on it is "
                "undefined (—)."
            )
    if extra := {result.extra_updates for _, result in finished} - {0}:
        yield (
            f"took {_listed(sorted(extra))} updates of its own beside those that every method is "
            "given."
        )
    if running := [run.seed for run in runs if run.result is None and run.failure is None]:
        yield f"seed {_listed(running)} has not finished; it is in the curves, not in the tables."


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _has_failed(result: Result) -> bool:
    there = result.measured
    return any(bool(np.isnan(matrix[there]).any()) for matrix in (result.scores, result.success))


def _lacks(result: Result) -> bool:
    return bool(np.isnan(result.prediction_error[result.measured]).any())


def _told_apart(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs, of those of one method with other settings with the settings that differ."""
    variants: dict[Path, str] = {}
    for method in dict.fromkeys(run.method for run in runs):
        flat = {run.path: _flat(run.config) for run in runs if run.method == method}
        # What one of them does not know, as one of another version, says nothing about it.
        keys = [
            k for k in _differing(flat.values()) if all(k in config for config in flat.values())
        ]
        names = _short([_setting(key) for key in keys])
        for path, config in flat.items():
            settings = (
                f"{name}={_text(config[key])}" for name, key in zip(names, keys, strict=True)
            )
            variants[path] = ", ".join(settings)
    return tuple(replace(run, variant=variants[run.path]) for run in runs)


def _short(settings: Sequence[str]) -> list[str]:
    """The last words of settings, where they tell which one is meant: a task's number does not."""
    last = [setting.rpartition(".")[2] for setting in settings]
    return [
        short if last.count(short) == 1 and not short.isdigit() else setting
        for setting, short in zip(settings, last, strict=True)
    ]


def _setting(key: str) -> str:
    """As one gives it: what a group's `name` says is chosen by the group, `planner=cem`."""
    return key.removesuffix(".name")


def _unlike(runs: Sequence[Run]) -> Iterator[str]:
    """Settings beside the methods' own that are not the same for all methods."""
    flat = [(run.method, _flat(run.config)) for run in runs]
    for key in _differing(config for _, config in flat):
        if key.startswith(_OF_METHODS) or not all(key in config for _, config in flat):
            continue
        values: dict[str, dict[str, None]] = {}
        for method, config in flat:
            values.setdefault(method, {})[_text(config[key])] = None
        if len({frozenset(each) for each in values.values()}) > 1:
            shown = ", ".join(f"{' and '.join(each)} of {m}" for m, each in values.items())
            yield f"{_setting(key)} is not the same for all methods: {shown}."


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys, those of tasks too, and values; without those in which seeds may differ."""
    tree: dict[str, Any] = {
        key: dict(enumerate(value)) if key.endswith("tasks") and isinstance(value, list) else value
        for key, value in dotted(config)
    }
    return {
        key: value
        for key, value in dotted(tree)
        if _NO_DIFFERENCE.isdisjoint({key.partition(".")[0], key.rpartition(".")[2]})
    }


def _differing(configs: Iterable[dict[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all configs."""
    flat = [{key: repr(value) for key, value in config.items()} for config in configs]
    keys = {key for config in flat for key in config}
    return sorted(key for key in keys if len({config.get(key) for config in flat}) > 1)


def _text(value: Any) -> str:
    """A setting's value as one would give it."""
    return (
        "null" if value is None else f"{value}".lower() if isinstance(value, bool) else f"{value}"
    )
