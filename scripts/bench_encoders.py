"""Time one step and one training window of every memory encoder.

    python scripts/bench_encoders.py [--device cpu|cuda] [--steps-only] [--out FILE.json]

A step is a control step's: one robot takes in a transition. A window is 64 robots over 64
transitions, forward and backward. On CUDA each is one CUDA graph. Settings are the defaults.
Checked first: steps against `encode`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_timing import Clock, Report, Times, timed

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.memory import MEMORIES, MemoryEncoder, make_memory

INPUTS = 22
ROBOTS = LENGTH = 64


def make(name: str, device: torch.device) -> MemoryEncoder:
    config = MEMORIES[name][1](name=name)
    return make_memory(config, INPUTS, torch.Generator().manual_seed(0)).to(device)


def stepper(memory: MemoryEncoder, token: torch.Tensor) -> Callable[[], Any]:
    """Takes in the token again and again; on CUDA by one graph, at the same addresses."""
    with torch.no_grad():
        state = memory.initial(len(token))

    def step(now: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(memory.step(state, now).values())

    if token.is_cuda:
        captured = CapturedFunction(step)
        return lambda: captured(token)
    return lambda: step(token)


def step_error(memory: MemoryEncoder, device: torch.device) -> float:
    """Largest difference between contexts of steps and those of `encode`, after up to 40."""
    tokens = torch.randn(3, 40, INPUTS, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        contexts, _ = memory.encode(tokens)
        state = memory.initial(3)
        found = [memory.read(memory.step(state, tokens[:, t])).clone() for t in range(40)]
    return float((torch.stack(found, 1) - contexts).abs().max())


def bench(name: str, clock: Clock, report: Report, device: torch.device, steps_only: bool) -> None:
    memory = make(name, device)
    g = torch.Generator().manual_seed(2)
    token = torch.randn(1, INPUTS, generator=g).to(device)
    window = torch.randn(ROBOTS, LENGTH, INPUTS, generator=g).to(device)
    report.attempt(
        name, "check", "steps against encode", lambda: {"share": step_error(memory, device)}
    )
    size, count = memory.state_bytes(), sum(p.numel() for p in memory.parameters())
    report.attempt(name, "size", f"bytes; {count} parameters", lambda: {"share": size})

    def step() -> dict[str, Any]:
        call = stepper(memory, token)
        if clock.cuda:
            return timed(Times.of(clock.events(call, 100)))
        return timed(clock.eager(call, 100))

    def backward(tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        memory.zero_grad()
        loss = memory.encode(tokens)[0].square().mean() + memory.auxiliary_loss()
        loss.backward()
        return (loss.detach(),)

    def train() -> dict[str, Any]:
        if not clock.cuda:
            return timed(clock.eager(lambda: backward(window), 10))
        captured = CapturedFunction(backward)
        return timed(Times.of(clock.events(lambda: captured(window), 20)))

    report.attempt(name, "step", "one robot, graph" if clock.cuda else "one robot", step)
    if not steps_only:
        report.attempt(name, "window", f"{ROBOTS} x {LENGTH}, forward and backward", train)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps-only", action="store_true", help="leave out the windows")
    parser.add_argument("--only", nargs="*", help="encoders by name, else all")
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, report = Clock(device), Report()
    for name in MEMORIES:
        if name != "none" and (arguments.only is None or name in arguments.only):
            bench(name, clock, report, device, arguments.steps_only)
    if arguments.out:
        report.write(arguments.out, device)


if __name__ == "__main__":
    main()
