"""Time every launch of the rollout kernel, and every part of a plan, on the planning workloads.

    PYTHONPATH=.:envs:kernels python scripts/bench_rollout.py --device cuda --out rollout.json

First each variant of the rollout kernel is compared with float64 on the same noise, then timed,
then whole plans with the fastest one. A variant that fails prints one line and the rest goes on.
Whole plans beside those of other libraries: bench_planner.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bench_timing import Clock, Report, Times, timed
from bench_workloads import WORKLOADS, Problem, Workload, reward
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.planning import trajectory_returns
from hypercrl_kernels import (
    Precision,
    elite_statistics,
    pack_layers,
    rollout,
    sample_actions,
)
from hypercrl_kernels.planning.elites_reference import elite_statistics_reference
from hypercrl_kernels.planning.rollout_reference import rollout_reference
from hypercrl_kernels.planning.sampling import sample_actions_reference


def rollout_variants(work: Workload) -> Iterator[tuple[Precision, Any]]:
    """(precision, launch) to try; a launch of None is the library's own choice, particles as rows
    where they are many."""
    from hypercrl_kernels.planning.rollout_launch import Launch

    yield "bf16", None
    # (tile, registers, shared, groups, chunks)
    shallow = [
        (8, 1, 0, 0, 1),
        (8, 1, 0, 1, 1),
        (8, 1, 0, 2, 1),
        (8, 1, 0, 4, 1),
        (8, 0, 1, 4, 1),
        (8, 0, 0, 4, 2),
        (16, 1, 0, 0, 1),
        (16, 1, 0, 1, 1),
        (16, 0, 1, 0, 1),
        (32, 0, 1, 0, 1),
        (64, 0, 1, 1, 1),
    ]
    deep = [
        (8, 0, 0, 0, 2),
        (8, 0, 0, 1, 2),
        (8, 0, 0, 4, 2),
        (8, 0, 0, 4, 1),
        (8, 0, 1, 4, 2),
        (8, 1, 0, 1, 2),
        (16, 0, 0, 0, 2),
        (16, 0, 0, 4, 2),
        (16, 0, 1, 0, 2),
        (16, 1, 0, 0, 2),
        (32, 0, 0, 0, 2),
        (32, 0, 1, 0, 2),
    ]
    for tile, *rest in shallow if len(work.hidden) == 2 else deep:
        registers, shared, groups, chunks = rest
        if work.robots == 1 or tile > 16:
            yield "bf16", Launch(tile, 8, registers, shared, True, groups, chunks, 16, 1)
    if len(work.hidden) > 2:
        yield "bf16", Launch(16, 8, 0, 0, True, 1, 0, 64, 3)
    yield "tf32x3", None
    yield "ieee", None


def bench_rollouts(problem: Problem, clock: Clock, report: Report) -> Any:
    """Every launch that is worth a try; returns the fastest in bf16, None on a CPU."""
    work, exact = problem.work, problem.exact()
    moved = (exact - exact[:, :, :1]).norm()

    def measure(function: Callable[[], Tensor]) -> dict[str, float]:
        error = float((function() - exact).norm() / moved)
        return timed(clock.graph(function), relative=error)

    arguments = (problem.state, problem.controls)
    reference = lambda: rollout_reference(problem.layers, *arguments)  # noqa: E731
    report.attempt(work.name, "torch", "rollout, float32", lambda: measure(reference))
    if not clock.cuda:
        return None
    from hypercrl_kernels.planning.rollout_launch import launch_rollout

    launches: dict[str, Any] = {}
    for precision, launch in rollout_variants(work):
        packed = pack_layers(problem.layers, precision)
        name = f"{precision} default"
        if launch is not None:
            name = (
                f"{precision} tile {launch.tile} groups {launch.groups} "
                f"kept {launch.registers}+{launch.shared} chunks {launch.chunks}"
            )
        part = "rollout" if precision == "bf16" else precision

        def call(packed: Any = packed, launch: Any = launch) -> Tensor:
            return launch_rollout(packed, *arguments, launch=launch)

        report.attempt(work.name, part, name, lambda call=call: measure(call))
        launches[name] = launch
    best = report.best(work.name, "rollout")
    return launches[best["variant"]] if best else None


def bench_parts(problem: Problem, clock: Clock, report: Report, compiled: Any) -> None:
    """What surrounds the rollout in one iteration."""
    work, planner, actions = problem.work, problem.planner, problem.controls
    mean = planner.initial(work.robots)[:, 0].contiguous()
    std = planner.std.expand_as(mean).contiguous()
    bounds = (planner.low, planner.high)
    states = rollout_reference(problem.layers, problem.state, actions)
    states = states.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)  # as the kernel writes
    returns = trajectory_returns(states, actions, reward)
    update = (returns, actions, work.elites, planner.min_std)
    shape = (work.iterations, *actions.shape)
    parts: dict[str, Callable[[], Any]] = {
        "noise of a plan": lambda: torch.randn(shape, device=actions.device),
        "returns, torch": lambda: trajectory_returns(states, actions, reward),
        "sampling, torch": lambda: sample_actions_reference(mean, std, actions, *bounds),
        "elites, torch": lambda: elite_statistics_reference(*update),
    }
    if clock.cuda:
        parts["sampling, kernel"] = lambda: sample_actions(mean, std, actions, *bounds)
        parts["elites, kernel"] = lambda: elite_statistics(*update)
    if traced := problem.traced():
        parts["returns, kernel"] = lambda: traced(states, actions)
    if compiled is not None:
        parts["returns, compiled"] = lambda: trajectory_returns(states, actions, compiled)
    for part, function in parts.items():
        run = lambda function=function: timed(clock.graph(function))  # noqa: E731
        report.attempt(work.name, "part", part, run)


def elites_in_common(problem: Problem) -> dict[str, float]:
    """Share of the float64 rollout's elites that the rollout of this device finds too."""
    states = rollout(problem.layers, problem.state, problem.controls)
    found = [
        trajectory_returns(s.double(), problem.controls.double(), reward)
        .topk(problem.work.elites, dim=1)
        .indices.sort()
        .values
        for s in (states, problem.exact())
    ]
    same = (found[0][:, :, None] == found[1][:, None]).any(1)
    return {"share": float(same.double().mean())}


@contextmanager
def torch_only() -> Iterator[None]:
    """Plan with the torch references of sampling and elites, on any device."""
    with patch.multiple(
        "hypercrl.planning.cem",
        sample_actions=sample_actions_reference,
        elite_statistics=elite_statistics_reference,
    ):
        yield


def bench_plans(
    problem: Problem, clock: Clock, report: Report, compiled: Any, fastest: Any
) -> None:
    """Whole plans: wall time of eager ones, then device and wall time of one CUDA graph each."""
    name = problem.work.name
    start = problem.planner.initial(problem.work.robots)
    plans: dict[str, tuple[Any, Any]] = {
        "torch": (problem.plan(rollout_reference, problem.layers), torch_only)
    }
    if clock.cuda:
        packed, traced = pack_layers(problem.layers), problem.traced()
        plans["kernels"] = (problem.plan(rollout, packed, returns=traced), nullcontext)
        plans["kernels, torch reward"] = (problem.plan(rollout, packed), nullcontext)
        if fastest is not None:
            from hypercrl_kernels.planning.rollout_launch import launch_rollout

            def roll(layers: Any, state: Tensor, actions: Tensor) -> Tensor:
                return launch_rollout(layers, state, actions, launch=fastest)

            fast = problem.plan(roll, packed, returns=traced)
            plans["kernels, fastest launch"] = (fast, nullcontext)
        if compiled is not None:
            plans["compiled"] = (problem.plan(rollout, packed, compiled), nullcontext)
    for variant, (plan, context) in plans.items():
        captured = CapturedFunction(plan, [plan.generator])
        with context():
            call = lambda plan=plan: plan(problem.state, start)  # noqa: E731
            report.attempt(
                name, "eager", f"{variant}, wall", lambda call=call: timed(clock.eager(call))
            )
            if not clock.cuda:
                continue
            call = lambda captured=captured: captured(problem.state, start)  # noqa: E731
            report.attempt(
                name, "graph", variant, lambda call=call: timed(Times.of(clock.events(call, 50)))
            )
            report.attempt(
                name, "graph", f"{variant}, wall", lambda call=call: timed(clock.eager(call, 50))
            )


def compiled_reward(problem: Problem) -> Any:
    """The reward through torch.compile, None where that fails."""
    try:
        torch._dynamo.reset()  # each workload compiles a few shapes; after eight it would give up
        function = torch.compile(reward, dynamic=False)
        states = rollout_reference(problem.layers, problem.state, problem.controls)
        function(states[:, :, :-1], problem.controls, states[:, :, 1:])
    except Exception as error:
        print("torch.compile fails:", str(error).splitlines()[0][:120])
        return None
    return function


COLUMNS = [
    ("rollout torch", "torch", "rollout, float32"),
    ("rollout best", "rollout", None),
    ("eager torch", "eager", "torch, wall"),
    ("graph torch", "graph", "torch"),
    ("graph kernels", "graph", "kernels"),
    ("torch reward", "graph", "kernels, torch reward"),
    ("graph compiled", "graph", "compiled"),
    ("its wall time", "graph", "compiled, wall"),
]


def summary(report: Report, problem: Problem) -> str:
    name, floor = problem.work.name, problem.floor()
    cells = [f"{name:13}"]
    for _, part, variant in COLUMNS:
        best = report.best(name, part, variant)
        cells.append(f"{best['median_us']:15.1f}" if best else f"{'-':>15}")
    cells.append("\n    floor of a rollout: " + ", ".join(f"{k} {v:.1f}" for k, v in floor.items()))
    if best := report.best(name, "rollout"):
        cells.append("\n    best rollout: " + best["variant"])
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
    one = torch.ones(1, device=device)
    report.attempt("any", "part", "one more kernel in a graph", lambda: timed(clock.graph(one.neg)))
    for work in WORKLOADS:
        if arguments.only and work.name not in arguments.only:
            continue
        problem = Problem(work, device)
        compiled = compiled_reward(problem) if arguments.compile and clock.cuda else None
        fastest = bench_rollouts(problem, clock, report)
        bench_parts(problem, clock, report, compiled)
        bench_plans(problem, clock, report, compiled, fastest)
        common = lambda problem=problem: elites_in_common(problem)  # noqa: E731
        report.attempt(work.name, "check", "elites in common with float64", common)
        report.rows.append({"workload": asdict(work), "floor": problem.floor()})
        lines.append(summary(report, problem))
    print("\n" + f"{'median µs':13}" + "".join(f"{title:>15}" for title, _, _ in COLUMNS))
    print("\n".join(lines))
    if arguments.out:
        report.write(arguments.out, device)


if __name__ == "__main__":
    main()
