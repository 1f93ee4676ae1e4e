"""Which runs can be compared: those on the same tasks, each once, told apart by their settings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypercrl.base.settings import as_given
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.differences import (
    differing_keys,
    repeats,
    setting_name,
    settings_of,
)
from hypercrl.report.runs import Run

_OF_TASKS = ("num_tasks", "order", "prediction_horizon")
"""Settings of `protocol` that say which tasks are learned, and what is measured of them."""


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
            counted, left_out = _once(_told_apart(own))
            benchmarks.append(Benchmark(env, preset, counted, name, left_out))
    return benchmarks


def _once(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Those that count, and repeats of them; of runs with one seed the one that came furthest.

    One that was given up came further than one in progress: how that ends is known.
    """
    counted: list[Run] = []
    for run in sorted(runs, key=lambda run: (run.result is None, run.failure is None)):
        if not any(repeats(run, other) for other in counted):
            counted.append(run)
    there = {run.path for run in counted}
    return (
        tuple(run for run in runs if run.path in there),
        tuple(run for run in runs if run.path not in there),
    )


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
    differing = differing_keys(settings)
    names = [
        ", ".join(f"{key}={as_given(own.get(key))}" for key in _OF_TASKS if key in differing)
        for own in settings
    ]
    if len(set(names)) == len(names):
        return names
    return [f"sequence {number}" for number in range(1, len(runs) + 1)]


def _told_apart(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs, of those of one method with other settings with the settings that differ."""
    variants: dict[Path, str] = {}
    for method in dict.fromkeys(run.method for run in runs):
        flat = {run.path: settings_of(run) for run in runs if run.method == method}
        # What one of them does not know, as one of another version, says nothing about it.
        keys = [
            k for k in differing_keys(flat.values()) if all(k in config for config in flat.values())
        ]
        names = _short([setting_name(key) for key in keys])
        for path, config in flat.items():
            settings = (
                f"{name}={as_given(config[key])}" for name, key in zip(names, keys, strict=True)
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
