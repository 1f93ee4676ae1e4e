"""Time a training step of hnet at 1 to 100 old tasks, beside one with the original's loop.

    python scripts/bench_training.py [--device cpu|cuda] [--kernels | --rounds] [--out FILE.json]

The hypernetwork is that of the push tasks (10 → [50, 50] → 44,810 weights), batch 100. On CUDA the
step is one CUDA graph. The peer is the same algorithm with the structure of the original program:
one head per weight tensor, Δθ parameter by parameter, a rebuild of the network for each old task,
an optimiser that is not fused. It computes the same gradients, which is checked first.

--rounds: a round of 2000 steps as a run launches them, by the steps of a graph, at 2, 19 and 100
old tasks. First the weights after 57 steps are compared, which are to be equal bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_collection import experiment
from bench_timing import Clock, Report, Times, timed
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.cuda_graph import CapturedFunction, CapturedSteps
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import Batch, HnetConfig, make_method
from hypercrl.methods.hnet import Hnet
from hypercrl.training.learner import Learner

OLD_TASKS = (1, 2, 4, 19, 100)
ROUND = 2000
"""Training steps of a round of the paper's protocol."""
A_GRAPH = (1, 5, CapturedSteps.AT_ONCE, 40)
"""Steps of a graph that are tried."""
MEMBERS = 5
"""Of the ensembles that are timed too, without a peer."""


def make_hnet(old_tasks: int, device: torch.device, members: int = 1) -> Hnet:
    """A method in the middle of the task after `old_tasks` others."""
    generator = torch.Generator().manual_seed(0)
    model = DynamicsModel(10, 2, [200, 200], probabilistic=False)
    config = HnetConfig("hnet", 1e-4, 5.0, members)
    hnet = make_method(model, config, generator, torch.Generator(device))
    assert isinstance(hnet, Hnet)
    for _ in range(old_tasks + 1):
        hnet.begin_task()
    # Targets of trained tasks differ from what is written now: the regulariser is not zero.
    hnet.targets.add_(0.01 * torch.randn(hnet.targets.shape, generator=generator).to(device))
    return hnet


def make_batch(device: torch.device, members: int = 1) -> Batch:
    g = torch.Generator().manual_seed(1)
    lead = (members,) if members > 1 else ()
    obs = torch.randn(*lead, 100, 10, generator=g)
    action = torch.rand(*lead, 100, 2, generator=g) * 2 - 1
    next_obs = obs + 0.1 * torch.cat(5 * [action], -1)
    return Batch(*(t.to(device) for t in (obs, action, next_obs)))


class LoopStep:
    """The training step with the structure of the original program."""

    def __init__(self, hnet: Hnet) -> None:
        self.hnet = copy.deepcopy(hnet)
        net, lengths = self.hnet.hypernetwork, self.hnet.model.layout.lengths
        *trunk, (weight, bias) = net.layout.split(net.theta.detach())
        heads = zip(weight.split(lengths), bias.split(lengths), strict=True)
        tensors = [t for pair in (*trunk, *heads) for t in pair]
        self.theta = [nn.Parameter(t.clone()) for t in tensors]
        rate = self.hnet.config.learning_rate
        self.theta_adam = torch.optim.Adam(self.theta, lr=rate, foreach=False)
        self.embedding = self.hnet.embeddings[-1]
        self.embedding_adam = torch.optim.Adam([self.embedding], lr=rate, foreach=False)

    def write(self, embedding: Tensor, theta: list[Tensor]) -> Tensor:
        """The flat weights, tensor by tensor."""
        x = embedding
        for weight, bias in zip(theta[:4:2], theta[1:4:2], strict=True):
            x = F.elu(F.linear(x, weight, bias))
        heads = theta[4:]
        pieces = [F.linear(x, w, b) for w, b in zip(heads[::2], heads[1::2], strict=True)]
        return torch.cat(pieces)

    def adam_steps(self) -> list[Tensor]:
        """Where Adam's next step would go, one parameter at a time."""
        steps = []
        for p in self.theta:
            state = self.theta_adam.state.get(p, {})
            count = float(state.get("step", 0)) + 1
            assert p.grad is not None
            mean = 0.1 * p.grad + 0.9 * state.get("exp_avg", torch.zeros_like(p))
            square = 0.001 * p.grad**2 + 0.999 * state.get("exp_avg_sq", torch.zeros_like(p))
            denominator = (square / (1 - 0.999**count)).sqrt() + 1e-8
            rate = self.hnet.config.learning_rate
            steps.append(-rate * (mean / (1 - 0.9**count)) / denominator)
        return steps

    def __call__(self, batch: Batch) -> None:
        hnet, config = self.hnet, self.hnet.config
        self.theta_adam.zero_grad()
        self.embedding_adam.zero_grad()
        weights = self.write(self.embedding, list(self.theta))
        hnet.model.loss(weights, batch).backward()
        nn.utils.clip_grad_norm_([self.embedding], config.clip_norm, foreach=False)
        self.embedding_adam.step()
        steps = self.adam_steps()
        regulariser = torch.zeros((), device=weights.device)
        old = list(hnet.embeddings)[:-1]
        for target, embedding in zip(hnet.targets, old, strict=True):
            ahead = [p + step for p, step in zip(self.theta, steps, strict=True)]
            written = self.write(embedding.detach(), ahead)
            regulariser = regulariser + (target - written).square().sum()
        (config.beta * len(batch) * regulariser / len(old)).backward()
        nn.utils.clip_grad_norm_(self.theta, config.clip_norm, foreach=False)
        self.theta_adam.step()

    def gradients(self) -> Tensor:
        """All of θ's gradients, flat, in the order of `Hypernetwork`."""
        grads = [p.grad for p in self.theta if p.grad is not None]
        heads = grads[4:]
        parts = [*grads[:4], torch.cat(heads[::2]), torch.cat(heads[1::2])]
        return torch.cat([p.flatten() for p in parts])


def gradient_error(hnet: Hnet, batch: Batch) -> float:
    """Relative distance of the gradients of one step, not clipped, from the loop's in float64.

    Not from the loop's own in float32: on a CPU its norms of millions are right to 1e-4 only.
    """
    hnet = copy.deepcopy(hnet)
    hnet.config.clip_norm = float("inf")
    loop = LoopStep(copy.deepcopy(hnet).double())
    loop(Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double()))
    hnet.optimisers = hnet._new_optimisers()
    hnet.training_step(batch)
    ours, theirs = hnet.hypernetwork.theta.grad, loop.gradients()
    assert ours is not None
    return float((ours - theirs).norm() / theirs.norm())


def captured_step(old_tasks: int, device: torch.device, members: int = 1) -> Callable[[], Any]:
    """A training step that replays one CUDA graph."""
    hnet, batch = make_hnet(old_tasks, device, members), make_batch(device, members)

    def step(obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, ...]:
        return tuple(hnet.training_step(Batch(obs, action, next_obs)).values())

    captured = CapturedFunction(step)
    return lambda: captured(batch.obs, batch.action, batch.next_obs)


def make_learner(old_tasks: int, device: torch.device, a_graph: int) -> Learner:
    """A run's learner in the midst of a task, before its first training step in it."""
    learner = Learner(experiment("push", 1, 1, str(device), ["protocol.replay_capacity=6000"]))
    for _ in range(old_tasks + 1):
        learner.begin_task()
    generator = torch.Generator().manual_seed(1)
    for _ in range(1000):
        obs = torch.randn(1, 10, generator=generator)
        action = torch.rand(1, 2, generator=generator) * 2 - 1
        learner.add(obs, action, obs + 0.1 * action.repeat(1, 5))
    learner.fit_normalisers()
    method, steps = learner.method, learner._training_steps
    assert isinstance(method, Hnet)
    method.targets.add_(0.01 * torch.randn(method.targets.shape, generator=generator).to(device))
    if isinstance(steps, CapturedSteps):
        steps.AT_ONCE = a_graph
    return learner


def bench_rounds(old_tasks: int, device: torch.device, report: Report) -> str:
    """Times of a step in rounds by turns; a line."""
    learners = {a_graph: make_learner(old_tasks, device, a_graph) for a_graph in A_GRAPH}
    for learner in learners.values():
        learner.train(57, "check")
    ends = [torch.cat([p.flatten() for p in x.method.parameters()]) for x in learners.values()]
    assert all(torch.equal(end, ends[0]) for end in ends), "the steps of a graph change the weights"
    steps, rounds = (ROUND, 5) if device.type == "cuda" else (1, 1)
    walls: dict[int, list[float]] = {a_graph: [] for a_graph in A_GRAPH}
    for _ in range(rounds):
        for a_graph, learner in learners.items():
            started = time.perf_counter()
            learner.train(steps, "timed")  # waits for the device at its end
            walls[a_graph].append(1e6 * (time.perf_counter() - started) / steps)
    line = f"{old_tasks:4} old"
    for a_graph in A_GRAPH:
        times, name = Times.of(walls[a_graph]), f"{a_graph} a graph"
        report.attempt(f"{old_tasks} old", "round", name, lambda times=times: timed(times))
        line += f"   {name}: {times.median:6.1f}"
    return line


def list_kernels(old_tasks: int, device: torch.device) -> None:
    """Print what one step launches: on CUDA the kernels of its graph, on a CPU torch's operations.

    Times of kernels are their own, without the gaps between them.
    """
    if device.type == "cuda":
        call = captured_step(old_tasks, device)
    else:
        hnet, batch = make_hnet(old_tasks, device), make_batch(device)
        call = lambda: hnet.training_step(batch)  # noqa: E731
    for _ in range(CapturedFunction.EAGER_CALLS + 2):
        call()
    with torch.profiler.profile() as profiler:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
    on_cuda = device.type == "cuda"
    rows = [
        (row.self_device_time_total if on_cuda else row.self_cpu_time_total, row.count, row.key)
        for row in profiler.key_averages()
        if str(row.device_type).endswith("CUDA") == on_cuda
    ]
    count, total = sum(row[1] for row in rows), sum(row[0] for row in rows)
    print(f"{old_tasks} old tasks: {count} launches, {total:.0f} µs")
    for microseconds, launches, name in sorted(rows, reverse=True)[:40]:
        print(f"{launches:5} {microseconds:8.1f} µs  {name[:110]}")


def bench(old_tasks: int, clock: Clock, report: Report, device: torch.device) -> None:
    name, batch = f"{old_tasks} old", make_batch(device)
    hnet = make_hnet(old_tasks, device)
    error = gradient_error(hnet, batch)
    report.attempt(name, "check", "gradients, relative error", lambda: {"share": error})
    loop = LoopStep(hnet)
    steps: dict[str, Callable[[], Any]] = {
        "ours, eager": lambda: hnet.training_step(batch),
        "the original's loop": lambda: loop(batch),
    }
    for variant, times in clock.interleaved(steps, repeats=15).items():
        report.attempt(name, "wall", variant, lambda times=times: timed(times))
    if clock.cuda:
        call = captured_step(old_tasks, device)
        report.attempt(
            name, "graph", "ours, device", lambda: timed(Times.of(clock.events(call, 100)))
        )
        report.attempt(name, "graph", "ours, wall", lambda: timed(clock.eager(call, 100)))


def bench_members(old_tasks: int, clock: Clock, report: Report, device: torch.device) -> None:
    """An ensemble's step beside that of one network: called in turn, in one process."""
    name = f"{old_tasks} old"
    calls: dict[str, Callable[[], Any]] = {}
    for members in (1, MEMBERS):
        if clock.cuda:
            calls[f"{members} members, graph"] = captured_step(old_tasks, device, members)
        else:
            hnet, batch = make_hnet(old_tasks, device, members), make_batch(device, members)
            calls[f"{members} members"] = lambda hnet=hnet, batch=batch: hnet.training_step(batch)
    found = clock.interleaved(calls, repeats=15)
    for variant, times in found.items():
        report.attempt(name, "members", variant, lambda times=times: timed(times))
    one, many = (timed(times)["median_us"] for times in found.values())
    print(f"{name}: {one:.1f} µs, {MEMBERS} members {many:.1f} µs, {many / one:.2f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    parser.add_argument("--kernels", action="store_true", help="list what a step launches instead")
    parser.add_argument("--rounds", action="store_true", help="time a run's rounds instead")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.kernels:
        list_kernels(OLD_TASKS[-2], device)
        return
    clock, report = Clock(device), Report()
    if arguments.rounds:
        lines = [bench_rounds(old_tasks, device, report) for old_tasks in (2, 19, 100)]
        print("\nµs a step of a round", *lines, sep="\n")
        if arguments.out:
            report.write(arguments.out, device)
        return
    for old_tasks in OLD_TASKS:
        bench(old_tasks, clock, report, device)
        if arguments.out:
            report.write(arguments.out, device)
    print(f"\n{'median µs':10}{'ours':>12}{'the loop':>12}{'ratio':>8}{'graph':>10}")
    for old_tasks in OLD_TASKS:
        name = f"{old_tasks} old"
        ours = report.best(name, "wall", "ours, eager")
        loop = report.best(name, "wall", "the original's loop")
        graph = report.best(name, "graph")
        if ours and loop:
            a, b = ours["median_us"], loop["median_us"]
            shown = f"{graph['median_us']:10.1f}" if graph else f"{'-':>10}"
            print(f"{name:10}{a:12.1f}{b:12.1f}{a / b:8.3f}{shown}")
    print()
    for old_tasks in OLD_TASKS:
        bench_members(old_tasks, clock, report, device)
    if arguments.out:
        report.write(arguments.out, device)


if __name__ == "__main__":
    main()
