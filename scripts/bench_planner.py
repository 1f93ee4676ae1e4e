"""Time one MPC plan, and what it is made of, on the workloads of docs: push, door, cheetah.

    PYTHONPATH=.:envs:kernels python scripts/bench_planner.py --device cuda --out planner.json

First every variant of the rollout kernel is compared with float64 on the same noise, then timed,
then whole plans. A variant that fails prints one line and the rest goes on. Needs torch, numpy and
triton only; nothing has to be installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypercrl.cuda_graph import CapturedFunction
from hypercrl.planning import CEM, CEMConfig, trajectory_returns
from hypercrl_kernels import Layers, Precision, pack_layers, rollout
from hypercrl_kernels.planning.rollout_reference import rollout_reference

# Ceilings of an H100 measured with a large product and a large copy: flop/s, bytes/s; and what
# shared memory delivers to one multiprocessor's tensor cores, bytes/s at 1.75 GHz.
FLOPS, BANDWIDTH, SHARED = 790e12, 3.0e12, 128 * 1.75e9


@dataclass(frozen=True)
class Workload:
    """One planning problem; `own` is one network per robot."""

    name: str
    obs: int
    action: int
    samples: int
    horizon: int
    elites: int
    hidden: tuple[int, ...]
    robots: int = 1
    own: bool = False
    iterations: int = 5


WORKLOADS = [
    Workload("push", 10, 2, 500, 20, 40, (200, 200)),
    Workload("door", 26, 7, 2000, 10, 40, (200,) * 4),
    Workload("cheetah", 18, 6, 500, 30, 50, (200,) * 4),
    Workload("push x64", 10, 2, 500, 20, 40, (200, 200), robots=64),
    Workload("push x64 own", 10, 2, 500, 20, 40, (200, 200), robots=64, own=True),
]


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Four planar points to their goals, and a price on motion: the shape of a pushing reward."""
    points = next_obs[..., -8:].unflatten(-1, (4, 2))
    goal = torch.full((4, 2), 0.1, device=obs.device)
    distance = (points - goal).norm(dim=-1)
    near = (1 - torch.tanh(10 * distance)).sum(-1)
    return (near - 0.25 * action.norm(dim=-1)) / 4


class Problem:
    """A workload's tensors: a random network that stays bounded, a start, and controls."""

    def __init__(self, work: Workload, device: torch.device) -> None:
        self.work = work
        g = torch.Generator().manual_seed(0)
        sizes = [work.obs + work.action, *work.hidden, work.obs]
        lead = (work.robots,) if work.own else ()
        self.layers: Layers = [
            (
                (torch.randn(*lead, o, i, generator=g) * (2 / i) ** 0.5).to(device),
                (0.1 * torch.randn(*lead, o, generator=g)).to(device),
            )
            for i, o in itertools.pairwise(sizes)
        ]
        self.layers[-1][0].mul_(0.05)
        self.state = torch.randn(work.robots, work.obs, generator=g).to(device)
        shape = (work.robots, work.samples, work.horizon, work.action)
        self.controls = torch.rand(shape, generator=g).mul_(2).sub_(1).to(device)
        ones = torch.ones(work.action, device=device)
        config = CEMConfig(work.samples, work.horizon, work.iterations, work.elites)
        self.planner = CEM(config, -ones, ones)

    def exact(self) -> Tensor:
        double = [(w.double(), b.double()) for w, b in self.layers]
        return rollout_reference(double, self.state.double(), self.controls.double())

    def plan(self, roll: Callable[..., Tensor], layers: Any, reward_fn: Any = reward) -> Callable:
        """A function (obs, mean) → (action, mean) and its generator."""
        generator = torch.Generator(self.state.device).manual_seed(1)

        def run(obs: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
            return self.planner.plan(
                lambda start, actions: roll(layers, start, actions),
                reward_fn,
                obs,
                mean,
                generator,
            )

        run.generator = generator  # type: ignore[attr-defined]
        return run

    def floor(self) -> dict[str, float]:
        """Microseconds below which one rollout cannot be, by three counts."""
        work = self.work
        weights = sum(w[0].numel() if work.own else w.numel() for w, _ in self.layers)
        steps = work.robots * work.samples * work.horizon
        moved = 4 * steps * (work.obs + work.action)
        return {
            "flop_us": 1e6 * 2 * weights * steps / FLOPS,
            "bytes_us": 1e6 * moved / BANDWIDTH,
            "weights_us": 1e6 * 2 * weights * work.horizon / SHARED,
        }


@dataclass(frozen=True)
class Times:
    """Microseconds: median, and the distance from the 10th to the 90th percentile."""

    median: float
    spread: float

    @classmethod
    def of(cls, samples: list[float]) -> Times:
        ordered = sorted(samples)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[-1 - tenth] - ordered[tenth])

    def __str__(self) -> str:
        return f"{self.median:9.1f} ±{self.spread / 2:5.1f} µs"


class Clock:
    """Times a function of no arguments on one device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def eager(self, function: Callable[[], Any], repeats: int = 20) -> Times:
        """Wall time of one call, waited for."""
        for _ in range(3):
            function()
        samples = []
        for _ in range(repeats):
            self._wait()
            started = time.perf_counter()
            function()
            self._wait()
            samples.append(1e6 * (time.perf_counter() - started))
        return Times.of(samples)

    def graph(self, function: Callable[[], Any], calls: int = 10, repeats: int = 30) -> Times:
        """Device time of one call among `calls` in one CUDA graph, by events."""
        if not self.cuda:
            return self.eager(function, repeats=5)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        return Times.of([t / calls for t in self.events(graph.replay, repeats)])

    def events(self, function: Callable[[], Any], repeats: int) -> list[float]:
        """Microseconds between events around each call."""
        for _ in range(3):
            function()
        samples = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            torch.cuda.synchronize()
            samples.append(1e3 * begin.elapsed_time(end))
        return samples

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


class Report:
    """Lines as they come, rows for the file, and the short table for the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: list[str] = []
        self.started = time.perf_counter()

    def attempt(self, work: str, part: str, variant: str, run: Callable[[], dict]) -> dict:
        """Run one measurement; its failure is a row too."""
        row: dict[str, Any] = {"workload": work, "part": part, "variant": variant}
        try:
            row |= run()
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
        self.rows.append(row)
        print(f"{time.perf_counter() - self.started:5.0f}s {self._line(row)}", flush=True)
        return row

    @staticmethod
    def _line(row: dict[str, Any]) -> str:
        head = f"{row['workload']:13}{row['part']:9}{row['variant']:44}"
        if "error" in row:
            return head + "FAILED " + row["error"]
        times = Times(row["median_us"], row["spread_us"])
        return head + str(times) + (f"  error {row['relative']:.1e}" if "relative" in row else "")

    def best(self, work: str, part: str) -> dict[str, Any] | None:
        good = [
            r
            for r in self.rows
            if (r["workload"], r.get("part")) == (work, part) and "median_us" in r
        ]
        return min(good, key=lambda r: r["median_us"], default=None)


def timed(times: Times, **more: float) -> dict[str, float]:
    return {"median_us": times.median, "spread_us": times.spread, **more}


def rollout_variants(work: Workload) -> Iterator[tuple[Precision, Any]]:
    """(precision, launch) to try; a launch of None is the library's own choice."""
    from hypercrl_kernels.planning.rollout_launch import Launch

    yield "bf16", None
    tiles = (16, 32, 64) if work.robots == 1 else (32, 64)
    if len(work.hidden) == 2:
        for tile in tiles:
            for warps in (4, 8, 16):
                yield "bf16", Launch(tile, warps, 0, 1, True, min(warps, 8), 32, 1)
            yield "bf16", Launch(tile, 8, 1, 0, True, 8, 32, 1)
        for groups in (1, 4, 16):
            yield "bf16", Launch(tiles[0], 8, 1, 0, True, groups, 32, 1)
    else:
        for tile in tiles[:2]:
            for warps in (8, 16):
                for registers, shared, block, stages in [
                    (0, 1, 32, 2),
                    (0, 1, 32, 3),
                    (1, 1, 32, 2),
                    (0, 0, 64, 3),
                ]:
                    yield "bf16", Launch(tile, warps, registers, shared, True, 8, block, stages)
    yield "tf32x3", None
    yield "ieee", None


def bench_rollouts(problem: Problem, clock: Clock, report: Report) -> None:
    work, exact = problem.work, problem.exact()
    moved = (exact - exact[:, :, :1]).norm()

    def measure(function: Callable[[], Tensor]) -> dict[str, float]:
        error = float((function() - exact).norm() / moved)
        return timed(clock.graph(function), relative=error)

    arguments = (problem.state, problem.controls)
    reference = lambda: rollout_reference(problem.layers, *arguments)  # noqa: E731
    report.attempt(work.name, "torch", "rollout, float32", lambda: measure(reference))
    if not clock.cuda:
        return
    from hypercrl_kernels.planning.rollout_launch import choose_launch, launch_rollout

    for precision, launch in rollout_variants(work):
        packed = pack_layers(problem.layers, precision)
        chosen = launch or choose_launch(packed, work.robots * work.samples)
        name = (
            f"{precision} tile {chosen.tile} warps {chosen.warps} groups {chosen.groups} "
            f"kept {chosen.registers}+{chosen.shared} block {chosen.block}x{chosen.stages}"
        )
        part = "rollout" if precision == "bf16" else precision

        def call(packed: Any = packed, chosen: Any = chosen) -> Tensor:
            return launch_rollout(packed, *arguments, chosen)

        report.attempt(work.name, part, name, lambda call=call: measure(call))


def bench_parts(problem: Problem, clock: Clock, report: Report, compiled: Any) -> None:
    """What surrounds the rollout in one iteration."""
    work, name = problem.work, problem.work.name
    states = rollout_reference(problem.layers, problem.state, problem.controls)
    actions = problem.controls
    parts: dict[str, Callable[[], Any]] = {
        "returns, torch": lambda: trajectory_returns(states, actions, reward),
        "noise, torch": lambda: torch.randn_like(actions),
        "sampling, torch": lambda: torch.clamp(
            torch.addcmul(actions[:, :1], actions[:, 1:2], actions), -1, 1
        ),
    }
    returns = trajectory_returns(states, actions, reward)

    def elites() -> tuple[Tensor, Tensor]:
        index = returns.topk(work.elites, dim=1).indices[:, :, None, None]
        chosen = actions.gather(1, index.expand(-1, -1, *actions.shape[2:]))
        return chosen.mean(1), chosen.std(1, correction=0).clamp_min(0.05)

    parts["elites, torch"] = elites
    if compiled is not None:
        parts["returns, compiled"] = lambda: trajectory_returns(states, actions, compiled)
    for part, function in parts.items():
        run = lambda function=function: timed(clock.graph(function))  # noqa: E731
        report.attempt(name, "part", part, run)


def bench_plans(problem: Problem, clock: Clock, report: Report, compiled: Any) -> None:
    name = problem.work.name
    mean = problem.planner.initial_mean(problem.work.robots)
    plans = {"torch": problem.plan(rollout_reference, problem.layers)}
    if clock.cuda:
        packed = pack_layers(problem.layers)
        plans["kernels"] = problem.plan(rollout, packed)
        if compiled is not None:
            plans["kernels, compiled reward"] = problem.plan(rollout, packed, compiled)
    for variant, plan in plans.items():
        call = lambda plan=plan: plan(problem.state, mean)  # noqa: E731
        report.attempt(
            name, "plan", f"{variant}, eager, wall", lambda call=call: timed(clock.eager(call))
        )
        if clock.cuda:
            captured = CapturedFunction(plan, [plan.generator])  # type: ignore[attr-defined]
            call = lambda captured=captured: captured(problem.state, mean)  # noqa: E731
            report.attempt(
                name, "graph", variant, lambda call=call: timed(warm_events(clock, call))
            )
            report.attempt(
                name, "graph", f"{variant}, wall", lambda call=call: timed(clock.eager(call, 50))
            )


def warm_events(clock: Clock, call: Callable[[], Any]) -> Times:
    for _ in range(CapturedFunction.EAGER_CALLS):
        call()
    return Times.of(clock.events(call, 50))


def compiled_reward(problem: Problem) -> Any:
    """The reward through torch.compile, None where that fails."""
    try:
        function = torch.compile(reward, dynamic=False)
        states = rollout_reference(problem.layers, problem.state, problem.controls)
        function(states[:, :, :-1], problem.controls, states[:, :, 1:])
    except Exception as error:
        print("torch.compile fails:", str(error).splitlines()[0][:120])
        return None
    return function


def summary(report: Report, problem: Problem) -> str:
    name, floor = problem.work.name, problem.floor()
    cells = [f"{name:13}"]
    for part in ("torch", "rollout", "plan", "graph"):
        best = report.best(name, part)
        cells.append(f"{best['median_us']:10.1f}" if best else f"{'-':>10}")
    cells.append("   floor " + " ".join(f"{k} {v:.1f}" for k, v in floor.items()))
    if best := report.best(name, "rollout"):
        cells.append("\n" + " " * 13 + "best rollout: " + best["variant"])
    return "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    parser.add_argument("--only", nargs="*", help="workloads, by name")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, report = Clock(device), Report()
    print("torch", torch.__version__, "on", torch.cuda.get_device_name() if clock.cuda else "cpu")
    lines = []
    for work in WORKLOADS:
        if arguments.only and work.name not in arguments.only:
            continue
        problem = Problem(work, device)
        compiled = compiled_reward(problem) if arguments.compile and clock.cuda else None
        bench_rollouts(problem, clock, report)
        bench_parts(problem, clock, report, compiled)
        bench_plans(problem, clock, report, compiled)
        report.rows.append({"workload": asdict(work), "floor": problem.floor()})
        lines.append(summary(report, problem))
    print(f"\nµs           {'rollout:':>10}{'rollout:':>10}{'plan:':>10}{'plan:':>10}")
    print(f"{'':13}{'torch':>10}{'kernel':>10}{'eager':>10}{'graph':>10}")
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text(json.dumps(report.rows, indent=1))


if __name__ == "__main__":
    main()
