"""Find the fastest launches of the memory kernels on this GPU, and check each against float64.

Every candidate is compiled first, many at a time in processes of their own. Then, in bfloat16, each
is timed in a CUDA graph at every shape and its error measured on keys of a random walk, where a bad
inverse shows. What comes out belongs into the tables of `hypercrl_kernels.memory.*_launch`.

    python scripts/tune_memory.py --out tuned.json
    python scripts/tune_memory.py --only "Gated DeltaNet" --shapes "B256 T64"
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from bench_kernels import SHAPES, Shape
from bench_timing import Clock
from torch import Tensor
from torch.nn.functional import normalize

from hypercrl_kernels.memory.chunk_memory_launch import (
    Launch,
    Problem,
    launch_backward,
    launch_forward,
)
from hypercrl_kernels.memory.chunk_memory_reference import Error, memory_chunks

PASSES = ("forward", "forward that saves", "backward")


@dataclass(frozen=True)
class Memory:
    """One way of using `chunk_memory`, as the kernels see it."""

    name: str
    error: Error = "none"
    gates: tuple[str, ...] = ()


MEMORIES = (
    Memory("Gated DeltaNet", "after_decay", ("log_decay", "beta")),
    Memory("linear attention"),
    Memory("RetNet", gates=("log_decay",)),
    Memory("DeltaNet", "before_decay", ("beta",)),
    Memory("Titans", "before_decay", ("log_decay", "beta", "log_momentum")),
)


def candidates(memory: Memory, width: int) -> Iterator[Launch]:
    """Launches worth trying: many sizes for the main operation, fewer for its relatives."""
    heavy = width > 64 or "log_momentum" in memory.gates
    sizes = ((16, 2), (16, 4), (32, 4), (32, 8), (64, 8)) if heavy else ()
    if not heavy:
        sizes = ((16, 1), (16, 2), (32, 2), (32, 4), (64, 4), (64, 8))
    for (chunk, warps), stages in itertools.product(sizes, (1, 2)):
        yield Launch(chunk, warps, stages)
        if memory.name == "Gated DeltaNet":
            most = 65536 // (32 * warps)  # registers a thread with one program a multiprocessor
            for programs in (3, 4, 6, 8):
                registers = most // programs // 8 * 8
                if stages == 1 and 96 <= registers <= 168:
                    yield Launch(chunk, warps, stages, registers=registers)


def inputs(memory: Memory, shape: Shape, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Sequences with keys of a random walk, and gates."""
    g = torch.Generator(device).manual_seed(0)
    lead = (shape.batch, shape.length, shape.heads)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, device=device)

    walk = randn(*lead, shape.width)
    walk[:, 1:] *= 0.1
    keys = normalize(walk.cumsum(1), dim=-1).to(dtype)
    x = {"q": keys.roll(1, 1), "k": keys, "v": randn(*lead, shape.width).to(dtype)}
    gates = {
        "log_decay": -0.01 * randn(*lead).abs(),
        "beta": 2 * randn(*lead).sigmoid(),
        "log_momentum": -0.3 - randn(*lead).abs(),
    }
    if "log_momentum" in memory.gates:
        gates["beta"] = 0.2 * gates["beta"]
    return x | {name: gates[name] for name in memory.gates}


def problem(memory: Memory, x: dict[str, Tensor], launches: tuple[Launch, Launch]) -> Problem:
    gates = (x.get("log_decay"), x.get("beta"), x.get("log_momentum"))
    place, scale = get_args(Error).index(memory.error), x["q"].shape[-1] ** -0.5
    return Problem(x["q"], x["k"], x["v"], *gates, None, None, place, scale, 64, launches)


def runs(memory: Memory, x: dict[str, Tensor], part: str, launch: Launch) -> Callable[[], Any]:
    """The kernel of that pass with that launch; a backward pass has a forward pass before it."""
    p = problem(memory, x, (launch, launch))
    if part != "backward":
        return lambda: launch_forward(p, part != "forward")
    before = replace(launch, registers=None)
    o, _, *kept = launch_forward(replace(p, launches=(before, before)), True)
    d_o = torch.randn(o.shape, device=o.device).to(o.dtype)
    return lambda: launch_backward(p, d_o, None, kept)


def compile_one(job: tuple[Memory, int, str, Launch]) -> tuple[float, str | None]:
    """Seconds, and what went wrong."""
    memory, width, part, launch = job
    started = time.perf_counter()
    try:
        x = inputs(memory, Shape(1, 64, 1, width), "cuda", torch.bfloat16)
        x = {n: t.expand(-1, -1, 4, *t.shape[3:]).contiguous() for n, t in x.items()}
        runs(memory, x, part, launch)()
        torch.cuda.synchronize()
    except Exception as error:
        return time.perf_counter() - started, f"{type(error).__name__}: {error}"[:100]
    return time.perf_counter() - started, None


def errors(memory: Memory, width: int, launch: Launch) -> tuple[float, float]:
    """Relative errors of the output, and of the worst gradient, against float64."""
    x = inputs(memory, Shape(4, 300, 4, width), "cuda", torch.bfloat16)
    leaves = {n: t.double().requires_grad_() for n, t in x.items()}
    wanted, _ = memory_chunks(
        leaves["q"] * width**-0.5,
        **{n: t for n, t in leaves.items() if n != "q"},
        error=memory.error,
    )
    d_o = torch.randn_like(wanted).bfloat16()
    exact = torch.autograd.grad(wanted, list(leaves.values()), d_o.double())
    p = problem(memory, x, (launch, launch))
    o, _, *kept = launch_forward(p, True)
    got = [g for g in launch_backward(p, d_o, None, kept) if g.numel()]

    def away(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b).norm() / b.norm())

    return away(o, wanted), max(map(away, got, exact))


def tune(chosen: list[Memory], shapes: list[Shape], processes: int) -> list[dict[str, Any]]:
    widths = sorted({shape.width for shape in shapes})
    jobs = [
        (memory, width, part, launch)
        for memory, width in itertools.product(chosen, widths)
        for launch in candidates(memory, width)
        for part in PASSES
    ]
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        outcomes = dict(zip(jobs, pool.map(compile_one, jobs, chunksize=1), strict=True))
    took = time.perf_counter() - started
    print(f"{len(jobs)} kernels compiled by {processes} processes in {took:.0f} s", flush=True)
    for job, (_, failure) in outcomes.items():
        if failure:
            print("   left out:", job[0].name, job[1], job[2], job[3], failure)

    clock, rows = Clock(torch.device("cuda")), []
    for memory, width in itertools.product(chosen, widths):
        launches = [
            launch
            for launch in candidates(memory, width)
            if all(outcomes[memory, width, part, launch][1] is None for part in PASSES)
        ]
        wrong = {launch: errors(memory, width, launch) for launch in launches}
        for shape in (s for s in shapes if s.width == width):
            x = inputs(memory, shape, "cuda", torch.bfloat16)
            for part in PASSES:
                times = {
                    launch: clock.graph(runs(memory, x, part, launch), calls=4, repeats=8).median
                    for launch in launches
                }
                for launch in sorted(times, key=lambda launch: times[launch]):
                    rows.append(
                        {"operation": memory.name, "shape": str(shape), "pass": part}
                        | {"median_us": times[launch], "error": wrong[launch], **asdict(launch)}
                    )
                report(rows[-len(times) :])
    return rows


def report(rows: list[dict[str, Any]], best: int = 4) -> None:
    """The fastest launches of one pass."""
    head = f"{rows[0]['operation']:18}{rows[0]['shape']:16}{rows[0]['pass']:20}"
    for row in rows[:best]:
        launch = Launch(**{name: row[name] for name in Launch.__dataclass_fields__})
        sizes = " ".join(f"{n} {v}" for n, v in asdict(launch).items() if v is not None)
        away = " ".join(f"{e:.0e}" for e in row["error"])
        print(f"{head}{row['median_us']:9.1f} µs  {sizes:40} errors {away}", flush=True)
        head = " " * len(head)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    parser.add_argument("--only", nargs="*", help="operations, by the start of their name")
    parser.add_argument("--shapes", nargs="*", help="such as 'B256 T64'")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    arguments = parser.parse_args()
    chosen = [m for m in MEMORIES if m.name.startswith(tuple(arguments.only or [""]))]
    shapes = [s for s in SHAPES if str(s) in (arguments.shapes or map(str, SHAPES))]
    rows = tune(chosen, shapes, arguments.processes)
    if arguments.out is not None:
        device = torch.cuda.get_device_name()
        arguments.out.write_text(json.dumps({"device": device, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
