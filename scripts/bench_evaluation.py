"""Rounds a second of an evaluation: every robot of every task planned for and stepped once.

    python scripts/bench_evaluation.py [--env push] [--tasks 5] [--episodes 10]
        [--simulators 16 17] [--device cuda] [--times 3] [--out FILE.json]

The planner is that of `preset=paper`, the model an untrained one. Two ways, one after the other:

- in turn: each task's plan is waited for, then the robots move
- overlapped: plans run while robots of other tasks are simulated and plans of others are begun;
  by the number of processes

All must come to the same scores. A round's time is split into waiting for plans, waiting for
simulators, and the rest, which is this process's own work. Also of a round: messages in both
directions and their bytes, milliseconds of a processor that this process takes and that all others
take together. Timed apart: `processes`, until all have started, `begin`, an evaluation of one
episode, for which kernels are compiled and held-out episodes drawn, and `first`, for which robots
are made and graphs captured.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_collection import begun, experiment, processor_seconds

from hypercrl.base.cores import cores
from hypercrl.base.strict_json import write_json
from hypercrl.training.evaluation import Episodes, Evaluator, Score
from hypercrl.training.experiment import Experiment
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


def watch(evaluator: Evaluator, timer: Timer, in_turn: bool) -> None:
    """Time the rounds of an evaluator, and what they wait for."""
    play, fleet = play_in_turn if in_turn else evaluator._play, evaluator.fleet
    start, step = fleet.start, fleet.step

    def timed_play(played: list[Episodes]) -> None:
        for agent in {id(episodes.agent): episodes.agent for episodes in played}.values():
            if "begin_act" not in vars(agent):
                agent.begin_act = timed_plan(agent.begin_act)
        with timer.timed("rounds"):
            play(played)

    def timed_plan(begin: Callable[..., Callable[[], Any]]) -> Callable[..., Callable[[], Any]]:
        def begun_plan(*given: Any) -> Callable[[], Any]:
            finish = timer.waiting("plans", begin(*given))
            if not in_turn:
                return finish
            found = finish()
            return lambda: found

        return begun_plan

    def timed_start(*given: Any) -> Callable[[], Any]:
        return timer.waiting("simulators", start(*given))

    def timed_step(*given: Any) -> Callable[[], Any]:
        return timer.waiting("simulators", step(*given))

    evaluator._play = timed_play  # type: ignore[reportAttributeAccessIssue]
    fleet.start = timed_start  # type: ignore[reportAttributeAccessIssue]
    fleet.step = timed_step  # type: ignore[reportAttributeAccessIssue]


def play_in_turn(played: list[Episodes]) -> None:
    """All plans of a round, and then all steps."""
    while going := [episodes for episodes in played if episodes.going]:
        for episodes in going:
            episodes.plan()
        for episodes in going:
            if episodes.going:
                episodes.move()
    for episodes in played:
        episodes.agent.plan_seconds.clear()


def others_seconds(fleet: SpreadFleet, robots: list[int]) -> float:
    """What all processes of these robots have taken of processors so far."""
    return sum(dict(fleet.start(robots, [processor_seconds] * len(robots))()).values())


def measure(
    parts: Experiment, fleet: SpreadFleet, in_turn: bool, tasks: int, episodes: int, times: int
) -> tuple[dict[str, Any], list[Score]]:
    evaluator = parts.evaluator(fleet=fleet)
    timer = Timer()
    believe = {task: partial(parts.labels.belief, task) for task in range(tasks)}
    started = time.perf_counter()
    one_each = fleet.make(0, fleet.width)
    processes = time.perf_counter() - started
    watch(evaluator, timer, in_turn)
    started = time.perf_counter()
    evaluator.evaluate(believe, 1, key=0)
    begin = time.perf_counter() - started
    started = time.perf_counter()
    scores = evaluator.evaluate(believe, episodes, key=0)
    first = time.perf_counter() - started
    others, messages, sent = others_seconds(fleet, one_each), fleet.messages, fleet.bytes
    timer.seconds.clear()
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(times):
        scores = evaluator.evaluate(believe, episodes, key=0)
    whole, worked = time.perf_counter() - started, time.process_time() - worked
    messages, sent = fleet.messages - messages, fleet.bytes - sent
    seconds = dict(timer.seconds)
    others = others_seconds(fleet, one_each) - others
    rounds = times * parts.sequence.episode_steps[0]
    spent = {what: 1e3 * of_it / rounds for what, of_it in seconds.items()}
    row = {
        "way": "in turn" if in_turn else "overlapped",
        "processes": fleet.width,
        "rounds_per_second": 1e3 / spent["rounds"],
        "round_ms": spent["rounds"],
        "waiting_for_plans_ms": spent["plans"],
        "waiting_for_simulators_ms": spent["simulators"],
        "own_work_ms": spent["rounds"] - spent["plans"] - spent["simulators"],
        "messages": messages / rounds,
        "bytes": sent / rounds,
        "own_processor_ms": 1e3 * worked / rounds,
        "others_processor_ms": 1e3 * others / rounds,
        "evaluation_s": whole / times,
        "processes_s": processes,
        "first_s": first,
        "begin_s": begin,
    }
    return row, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", default="push")
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--simulators", type=int, nargs="+", default=[min(16, cores())])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--words", nargs="*", default=[], help="further settings, KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = experiment(given.env, 1, given.simulators[0], given.device, given.words)
    with closing(LocalFleet(parts.sequence)) as local:
        begun(parts, local)
    rows, found = [], []
    ways = [(True, given.simulators[0]), *((False, number) for number in given.simulators)]
    for in_turn, processes in ways:
        with closing(SpreadFleet(parts.sequence, processes)) as fleet:
            row, scores = measure(parts, fleet, in_turn, given.tasks, given.episodes, given.times)
        rows.append(row)
        found.append(scores)
        print(*(f"{k} {v:.3g}" if k != "way" else v for k, v in row.items()), sep="  ", flush=True)
    assert all(scores == found[0] for scores in found), "the scores differ"
    if given.out:
        sizes = {key: getattr(given, key) for key in ("env", "tasks", "episodes", "device")}
        write_json(given.out, {**sizes, "cores": cores(), "rows": rows}, indent=2)


if __name__ == "__main__":
    main()
