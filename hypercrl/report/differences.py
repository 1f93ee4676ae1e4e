"""In which settings runs differ."""

from collections.abc import Iterable
from typing import Any

from hypercrl.base.dotted import dotted
from hypercrl.report.runs import Run

_NO_DIFFERENCE = {
    *("seed", "run_dir", "device", "resume", "extend", "trust", "threads"),
    *("simulators", "logger", "checkpoint_every", "watch"),
}
"""Config keys in which the seeds of one method may differ."""


def settings_of(run: Run) -> dict[str, Any]:
    """Dotted keys, those of tasks too, and values; without those in which seeds may differ."""
    tree: dict[str, Any] = {
        key: dict(enumerate(value)) if key.endswith("tasks") and isinstance(value, list) else value
        for key, value in dotted(run.config)
    }
    return {
        key: value
        for key, value in dotted(tree)
        if _NO_DIFFERENCE.isdisjoint({key.partition(".")[0], key.rpartition(".")[2]})
    }


def differing_keys(configs: Iterable[dict[str, Any]]) -> list[str]:
    """Keys whose values are not the same in all configs."""
    flat = [{key: repr(value) for key, value in config.items()} for config in configs]
    keys = {key for config in flat for key in config}
    return sorted(key for key in keys if len({config.get(key) for config in flat}) > 1)


def repeats(run: Run, other: Run) -> bool:
    """Whether two runs have one seed, and one value of every setting that both know."""
    if (run.contender, run.seed) != (other.contender, other.seed):
        return False
    mine, its = settings_of(run), settings_of(other)
    return all(repr(mine[key]) == repr(its[key]) for key in mine.keys() & its.keys())


def setting_name(key: str) -> str:
    """As one gives it: what a group's `name` says is chosen by the group, `planner=cem`."""
    return key.removesuffix(".name")
