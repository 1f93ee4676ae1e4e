"""Rounds a second of an evaluation: every robot of every task planned for and stepped once.

    python scripts/bench_evaluation.py [--env push] [--sizes 5x10 5x5] [--ahead 2 8]
        [--simulators 16] [--device cuda] [--times 3] [--out FILE.json]

A size is tasks × episodes. The planner is that of `preset=paper`, the model an untrained one. Ways,
by turns on the same processes: so many tasks at most are planned for while the robots in the others
move, and no more than half of them, see `PLANS_AHEAD`. All must come to the same scores. A round's
time is split into waiting for plans, waiting for simulators, and the rest, which is this process's
own work. Also of a round: messages in both directions and their bytes, milliseconds of a processor
that this process takes and that all others take together. Timed apart: `processes`, until all have
started, and `first`, an evaluation for which kernels are compiled, held-out episodes drawn, robots
made and graphs captured.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_collection import begun, experiment, processor_seconds

from hypercrl.base.cores import cores
from hypercrl.base.strict_json import write_json
from hypercrl.training import evaluation
from hypercrl.training.episodes import Episodes
from hypercrl.training.evaluation import Evaluator, Score
from hypercrl_envs import LocalFleet, SpreadFleet


class Timer:
    """Seconds by what they were spent on, and how often."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - started  # type: ignore[reportArgumentType]
        self.calls[what] += 1

    def waiting(self, what: str, wait: Callable[[], Any]) -> Callable[[], Any]:
        """`wait`, timed."""

        def timed() -> Any:
            with self.timed(what):
                return wait()

        return timed


def watch(evaluator: Evaluator, timer: Timer) -> None:
    """Time the rounds of an evaluator, and what they wait for."""
    play, fleet = evaluator._play, evaluator.fleet
    start, step = fleet.start, fleet.step

    def timed_play(played: list[Episodes]) -> None:
        for episodes in played:
            if "begin_act" not in vars(episodes.agent):
                episodes.agent.begin_act = timed_plan(episodes.agent.begin_act)
        with timer.timed("rounds"):
            play(played)

    def timed_plan(begin: Callable[..., Callable[[], Any]]) -> Callable[..., Callable[[], Any]]:
        return lambda *given: timer.waiting("plans", begin(*given))

    evaluator._play = timed_play  # type: ignore[reportAttributeAccessIssue]
    vars(fleet).update(
        start=lambda *given: timer.waiting("simulators", start(*given)),
        step=lambda *given: timer.waiting("simulators", step(*given)),
    )


def others_seconds(fleet: SpreadFleet, robots: list[int]) -> float:
    """What all processes of these robots have taken of processors so far."""
    return sum(dict(fleet.start(robots, [processor_seconds] * len(robots))()).values())


class Measured:
    """One way to evaluate tasks in so many episodes each, and what it has taken so far."""

    def __init__(self, evaluator: Evaluator, ahead: int, believe: dict[int, Any], episodes: int):
        self.evaluator, self.ahead, self.believe = evaluator, ahead, believe
        self.episodes = episodes
        self.timer = Timer()
        self.spent: Counter[str] = Counter()
        self.rounds = 0
        self.scores: list[Score] = []

    def evaluate(self, timer: Timer, one_each: list[int]) -> None:
        fleet = self.evaluator.fleet
        assert isinstance(fleet, SpreadFleet)
        timer.seconds.clear()
        before = self._counted(fleet, one_each)
        with patch.object(evaluation, "PLANS_AHEAD", self.ahead):
            self.scores = self.evaluator.evaluate(self.believe, self.episodes, key=0)
        self.spent.update(self._counted(fleet, one_each))
        self.spent.subtract(before)
        self.spent.update(timer.seconds)
        self.rounds += fleet.sequence.episode_steps[0]

    def _counted(self, fleet: SpreadFleet, one_each: list[int]) -> dict[str, float]:
        others = others_seconds(fleet, one_each)
        return {
            "messages": fleet.messages,
            "bytes": fleet.bytes,
            "others": others,
            "own": time.process_time(),
            "whole": time.perf_counter(),
        }

    def row(self) -> dict[str, Any]:
        each = {what: of_it / self.rounds for what, of_it in self.spent.items()}
        waited = each["plans"] + each["simulators"]
        return {
            "size": f"{len(self.believe)}x{self.episodes}",
            "ahead": self.ahead,
            "rounds_per_second": 1 / each["rounds"],
            "round_ms": 1e3 * each["rounds"],
            "waiting_for_plans_ms": 1e3 * each["plans"],
            "waiting_for_simulators_ms": 1e3 * each["simulators"],
            "own_work_ms": 1e3 * (each["rounds"] - waited),
            "messages": each["messages"],
            "bytes": each["bytes"],
            "own_processor_ms": 1e3 * each["own"],
            "others_processor_ms": 1e3 * each["others"],
            "evaluation_s": each["whole"] * self.evaluator.fleet.sequence.episode_steps[0],
        }


def measure(given: argparse.Namespace, processes: int) -> Iterator[dict[str, Any]]:
    """Every way of every size, by turns in processes that are the same."""
    parts = experiment(given.env, 1, processes, given.device, given.words)
    with closing(LocalFleet(parts.sequence)) as local:
        begun(parts, local)
    with closing(SpreadFleet(parts.sequence, processes)) as fleet:
        started = time.perf_counter()
        one_each = fleet.make(0, processes)
        seconds = {"processes_s": time.perf_counter() - started}
        evaluator, timer = parts.evaluator(fleet=fleet), Timer()
        watch(evaluator, timer)
        for size in given.sizes:
            tasks, episodes = map(int, size.split("x"))
            believe = {task: partial(parts.labels.belief, task) for task in range(tasks)}
            ways = [Measured(evaluator, way, believe, episodes) for way in given.ahead]
            for way in ways:  # robots, graphs and what they compile
                started = time.perf_counter()
                way.evaluate(timer, one_each)
                seconds.setdefault("first_s", time.perf_counter() - started)
                way.spent.clear()
                way.rounds = 0
            for turn in range(given.times):
                for way in ways[:: 1 if turn % 2 == 0 else -1]:
                    way.evaluate(timer, one_each)
            assert all(way.scores == ways[0].scores for way in ways), "the scores differ"
            for way in ways:
                yield {"processes": processes, **way.row(), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", default="push")
    parser.add_argument("--sizes", nargs="+", default=["5x10", "5x5"])
    parser.add_argument("--ahead", type=int, nargs="+", default=[evaluation.PLANS_AHEAD, 8])
    parser.add_argument("--simulators", type=int, nargs="+", default=[min(16, cores())])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--words", nargs="*", default=[], help="further settings, KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for processes in given.simulators:
        for row in measure(given, processes):
            rows.append(row)
            said = (f"{k} {v:.3g}" if isinstance(v, float) else f"{v}" for k, v in row.items())
            print(*said, sep="  ", flush=True)
    if given.out:
        sizes = {key: getattr(given, key) for key in ("env", "device")}
        write_json(given.out, {**sizes, "cores": cores(), "rows": rows}, indent=2)


if __name__ == "__main__":
    main()
