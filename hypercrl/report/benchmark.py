"""Runs on the same tasks with the same preset, and what they come to method by method."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from hypercrl.base.settings import as_given
from hypercrl.metrics import (
    Array,
    Mask,
    auc_forward_transfer,
    continual_world_forward_transfer,
    just_trained,
    normalise,
)
from hypercrl.report.differences import (
    differing_keys,
    repeats,
    setting_name,
    settings_of,
)
from hypercrl.report.formats import decimals
from hypercrl.report.runs import Result, Run

REFERENCE = "single"
"""The method that normalised scores are relative to: each task learnt by an agent of its own."""

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
    def everywhere(self) -> Mask:
        """All tasks, bool [N]: means of returns are over these."""
        return np.ones(len(self.tasks), bool)

    @property
    def counted(self) -> Mask:
        """Tasks that the mean of `outcome` is over, bool [N]."""
        return self.everywhere if self.by_return else self.succeeds

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
            if others := [other.path for other in self.repeats if repeats(other, run)]:
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


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    """What is to be known of the runs of one method."""
    seeds = [run.seed for run in runs]
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        yield f"seed {_listed(repeated)} is there more than once, with other settings each time."
    if differing := differing_keys([settings_of(run) for run in runs]):
        yield (
            f"its runs differ in {_listed(map(setting_name, differing))}, and are averaged as if "
            "they were seeds."
        )
    finished = [(run.seed, run.result) for run in runs if run.result is not None]
    if failed := [seed for seed, result in finished if _has_failed(result)]:
        yield f"seed {_listed(failed)} has failed cells; what depends on them is undefined (—)."
    if further := [run.seed for run in runs if run.result and run.config.get("extend")]:
        yield (
            f"seed {_listed(further)} was extended; what its further tasks were like before they "
            "were learned is undefined (—)."
        )
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


def _unlike(runs: Sequence[Run]) -> Iterator[str]:
    """Settings beside the methods' own that are not the same for all methods."""
    flat = [(run.method, settings_of(run)) for run in runs]
    for key in differing_keys(config for _, config in flat):
        if key.startswith(_OF_METHODS) or not all(key in config for _, config in flat):
            continue
        values: dict[str, dict[str, None]] = {}
        for method, config in flat:
            values.setdefault(method, {})[as_given(config[key])] = None
        if len({frozenset(each) for each in values.values()}) > 1:
            shown = ", ".join(f"{' and '.join(each)} of {m}" for m, each in values.items())
            yield f"{setting_name(key)} is not the same for all methods: {shown}."
