"""Time one MPC plan beside those of other libraries: called in turn, in one process.

    python scripts/bench_planner.py [--device cpu|cuda] [--only push door] [--out FILE.json]

All get the same weights, reward and sizes. On CUDA ours is one CUDA graph and its device time is
measured too. "matrix products" are the plan's own products alone, and "large product" is a large
square one: the machine's limits. Which others there are and how they are installed:
peer_planners.py. Model steps are the transitions that are predicted, of others by their products.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_timing import Clock, Report, Times, timed
from bench_workloads import ENSEMBLES, WORKLOADS, Problem, Workload, network_flops, reward
from peer_planners import peers

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Ensemble
from hypercrl.planning import PLANNERS, make_planner

LARGE = 1024


def ours(problem: Problem, name: str, precision: str | None = None, **settings: Any) -> Agent:
    """An agent with the planner of that name, as training uses it, and settings of it."""
    work, planner = problem.work, problem.planner
    sizes = {k: getattr(work, k) for k in ("samples", "horizon", "iterations", "elites")}
    searcher = make_planner(
        PLANNERS[name][1](precision=precision, **sizes, **settings), planner.low, planner.high
    )
    generator = torch.Generator(planner.low.device).manual_seed(0)
    agent = Agent(searcher, reward, work.robots, generator)
    if work.members > 1:
        agent.believe(Ensemble(list(problem.layers), work.robots))
    else:
        agent.set_layers(problem.layers)
    return agent


def products(problem: Problem) -> Callable[[], None]:
    """The matrix products of one plan, and nothing else."""
    work = problem.work
    count = work.robots * work.samples * work.members
    device = problem.state.device
    one = [w[0] if work.members > 1 else w for w, _ in problem.layers]
    pairs = [(torch.randn(count, w.shape[1], device=device), w.t()) for w in one]
    outs = [torch.empty(count, w.shape[0], device=device) for w in one]

    def run() -> None:
        for _ in range(work.iterations * work.horizon):
            for (x, weight), out in zip(pairs, outs, strict=True):
                torch.mm(x, weight, out=out)

    return run


def transitions(work: Workload) -> int:
    """Of all robots in one plan."""
    return work.robots * work.members * work.samples * work.horizon * work.iterations


def bench(problem: Problem, clock: Clock, report: Report, repeats: int) -> None:
    work, obs = problem.work, problem.state
    functions: dict[str, Callable[[], Any]] = {}
    steps: dict[str, int] = {}
    agents = {name: ours(problem, name) for name, (kind, _) in PLANNERS.items() if not kind.follows}
    if work.members > 1:
        agents["cem, penalty"] = ours(problem, "cem", risk="penalty")
        agents["cem, cvar"] = ours(problem, "cem", risk="cvar")
        agents["cem, TS1"] = ours(problem, "cem", propagation="ts1")
    if not clock.cuda:
        agents["cem, bf16"] = ours(problem, "cem", "bf16")
    for name, agent in agents.items():
        functions[f"ours, {name}"] = lambda agent=agent: agent.act(obs)
        steps[f"ours, {name}"] = transitions(work)
    if work.robots == work.members == 1:
        found, left_out = peers(problem)
        for name, why in left_out.items():
            report.leave_out(work.name, "wall", name, why)
        for peer in found:
            functions[peer.name] = lambda peer=peer: peer.plan(obs[0])
            steps[peer.name] = peer.steps
    square = torch.randn(LARGE, LARGE, device=obs.device)
    if not clock.cuda:
        functions["matrix products"] = products(problem)
        functions["large product"] = lambda: square @ square
    for variant, times in clock.interleaved(functions, repeats).items():
        rates = speeds(work, times, steps[variant]) if variant in steps else {}
        report.attempt(work.name, "wall", variant, lambda t=times, r=rates: timed(t, **r))
    if clock.cuda:
        for name, agent in agents.items():
            belief = agent.belief
            known = [] if belief is None else [belief.probabilities()]
            call = lambda agent=agent, known=known: agent._plan(obs, agent.start, *known)  # noqa: E731
            report.attempt(
                work.name,
                "device",
                f"ours, {name}",
                lambda call=call: timed(Times.of(clock.events(call, 100))),
            )


def speeds(work: Workload, times: Times, steps: int) -> dict[str, float]:
    """Of all robots: plans a second, transitions of one call, and of a second."""
    seconds = 1e-6 * times.median
    rates = {"plans_per_second": work.robots / seconds, "model_steps_per_second": steps / seconds}
    return {"model_steps": steps, **rates}


def summary(report: Report, work: Workload) -> str:
    """Milliseconds, plans and model steps a second, and what of that time ours takes."""
    mine = report.best(work.name, "wall", "ours, cem")
    assert mine is not None
    lines = [f"\n{work.name}: {work.samples} samples x {work.horizon} x {work.iterations}"]
    head = f"{'ms':>9} {'±':>8} {'plans/s':>10} {'model steps/s':>14} {'ours takes':>12}"
    lines.append(f"  {'':28}{head}")
    for row in report.rows:
        if row["workload"] == work.name and row.get("part") == "wall" and "median_us" in row:
            ratio = mine["median_us"] / row["median_us"]
            times = f"{row['median_us'] / 1e3:9.3f} {row['spread_us'] / 2e3:8.3f}"
            rates = f"{'':25}"
            if "model_steps" in row:
                plans, steps = row["plans_per_second"], row["model_steps_per_second"]
                rates = f"{plans:10.1f} {steps:14.3g}"
            lines.append(f"  {row['variant']:28}{times} {rates} {ratio:12.3f}")
    if large := report.best(work.name, "wall", "large product"):
        flops = network_flops(work) * transitions(work)
        rate, limit = flops / mine["median_us"], 2.0 * LARGE**3 / large["median_us"]
        lines.append(
            f"  ours, cem: {rate / 1e3:.1f} GFLOP/s, {rate / limit:.2f} of a large product's"
        )
    if device := report.best(work.name, "device", "ours, cem"):
        lines.append(f"  ours, cem, device time: {device['median_us'] / 1e3:.3f} ms")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    parser.add_argument("--only", nargs="*", help="workloads, by name")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, report = Clock(device), Report()
    known = [*WORKLOADS, *ENSEMBLES]
    chosen = [w for w in known if w.name in (arguments.only or [v.name for v in known])]
    if not clock.cuda and not arguments.only:
        chosen = [w for w in chosen if w.robots == 1]
    for work in chosen:
        bench(Problem(work, device), clock, report, arguments.repeats)
        if arguments.out:
            report.write(arguments.out, device)
    for work in chosen:
        print(summary(report, work))


if __name__ == "__main__":
    main()
