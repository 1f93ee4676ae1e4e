"""Plans of an agent as one CUDA graph, of one build or of two by turns.

    PYTHONPATH=.:envs:kernels python scripts/bench_plans.py --before ../earlier --out plans.json

Every plan is first compared with the same search, by the same noise, in torch operations; then
device times are measured. With `--before`, the root of another checkout, a process of each build
stays alive and they are timed in turn, so that what slows the machine slows both. Parts of a plan:
bench_rollout.py; beside those of other libraries: bench_planner.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_timing import Clock, Report, Times, timed
from bench_workloads import WORKLOADS, Problem, reward

from hypercrl.agent.agent import Agent
from hypercrl_kernels.planning.rollout_reference import rollout_reference

WORKS = {work.name: work for work in WORKLOADS}


class Plan:
    """A workload's plan by an agent, as it is while a robot is controlled."""

    def __init__(self, name: str) -> None:
        device = torch.device("cuda")
        self.problem = problem = Problem(WORKS[name], device)
        generator = torch.Generator(device)
        self.agent = Agent(problem.planner, reward, problem.work.robots, generator)
        self.agent.set_layers(problem.layers)
        self.clock = Clock(device)

    def difference(self) -> float:
        """Root mean square of its action's from that in torch operations, of half the range."""
        problem, generator = self.problem, self.agent.generator
        start = problem.planner.initial(problem.work.robots)
        roll = partial(rollout_reference, problem.layers)
        generator.manual_seed(2)
        wanted, _ = problem.planner.plan(roll, reward, problem.state, start, generator)
        generator.manual_seed(2)
        found, *_ = self.agent._plan_eagerly(problem.state, start)
        return float((found - wanted).square().mean().sqrt())

    def microseconds(self) -> float:
        """Median device time of one graph."""
        call = partial(self.agent._plan_whole, [self.problem.state, self.agent.start])
        return statistics.median(self.clock.events(call, 50))


def serve() -> None:
    """Answer names of workloads with a time each: what a process of one build does."""
    plans: dict[str, Plan] = {}
    for line in sys.stdin:
        name = line.strip()
        answer: dict[str, Any] = {}
        try:
            if name not in plans:
                plans[name] = Plan(name)
                answer["difference"] = plans[name].difference()
            answer["us"] = plans[name].microseconds()
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
        print(json.dumps(answer, allow_nan=False), flush=True)


class Build:
    """A process that imports one checkout."""

    def __init__(self, root: Path) -> None:
        paths = [str(root / part) for part in ("", "envs", "kernels")]
        rest = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths + rest)},
        )

    def ask(self, name: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline() or '{"error": "the process ended"}')

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(builds: dict[str, Build], name: str, rounds: int, report: Report) -> str:
    """Rows of one workload, and its line of the table."""
    times: dict[str, list[float]] = {build: [] for build in builds}
    differences: dict[str, float] = {}
    faults: dict[str, str] = {}
    for _ in range(rounds):
        for build, process in builds.items():
            answer = process.ask(name)
            differences |= {build: answer["difference"]} if "difference" in answer else {}
            faults |= {build: answer["error"]} if "error" in answer else {}
            times[build] += [answer["us"]] if "us" in answer else []
    line = f"{name:14}"
    for build in builds:

        def row(build: str = build) -> dict[str, float]:
            if build in faults:
                raise RuntimeError(faults[build])
            return timed(Times.of(times[build]), difference=differences[build])

        found = report.attempt(name, "graph", build, row)
        line += f"{found['median_us']:12.1f} µs" if "median_us" in found else f"{'failed':>15}"
        line += f"{differences.get(build, float('nan')):10.4f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="root of another checkout")
    parser.add_argument("--only", nargs="*", choices=list(WORKS), help="workloads, by name")
    parser.add_argument("--rounds", type=int, default=5, help="medians of 50 plans, by turns")
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    here = Path(__file__).resolve().parent.parent
    roots = ({"before": arguments.before.resolve()} if arguments.before else {}) | {"now": here}
    builds = {name: Build(root) for name, root in roots.items()}
    report = Report()
    lines = [measure(builds, work, arguments.rounds, report) for work in arguments.only or WORKS]
    for build in builds.values():
        build.end()
    titles = "".join(f"{build:>15}{'differs':>10}" for build in builds)
    print("\n" + f"{'device time':14}" + titles)
    print("\n".join(lines))
    if arguments.out:
        report.write(arguments.out, torch.device("cuda"))


if __name__ == "__main__":
    main()
