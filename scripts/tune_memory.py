"""Find the fastest launches of the memory kernels on this GPU, and check each against float64.

Every candidate is compiled first, many at a time in processes of their own. Then, in bfloat16, each
is timed in a CUDA graph at every shape and its error measured on keys of a random walk, where a bad
inverse shows. What comes out belongs into the tables of `hypercrl_kernels.memory.*.launch`.

    python scripts/tune_memory.py --out tuned.json
    python scripts/tune_memory.py --only "Gated DeltaNet" --shapes "B256 T64"
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import multiprocessing.pool
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
from bench_kernels import SHAPES, Shape
from bench_timing import Clock
from torch import Tensor
from torch.nn.functional import normalize

from hypercrl.base.strict_json import write_json
from hypercrl_kernels.memory.chunk_gla import launch as gla_launch
from hypercrl_kernels.memory.chunk_gla.chunked import gla_chunks
from hypercrl_kernels.memory.chunk_memory import launch as memory_launch
from hypercrl_kernels.memory.chunk_memory.chunked import memory_chunks
from hypercrl_kernels.memory.chunk_memory.launch import Launch, Problem
from hypercrl_kernels.memory.chunk_memory.naive import Error

PASSES = ("forward", "forward that saves", "backward")


@dataclass(frozen=True)
class Memory:
    """One way of using `chunk_memory`, or `chunk_gla`, as the kernels see it."""

    name: str
    error: Error = "none"
    gates: tuple[str, ...] = ()

    @property
    def vector(self) -> bool:
        """Decays are vectors: these are the kernels of `chunk_gla`."""
        return "key_decay" in self.gates

    def exact(self, q: Tensor, k: Tensor, v: Tensor, **gates: Tensor) -> Tensor:
        """The output in torch, q already scaled."""
        if self.vector:
            return gla_chunks(q, k, v, gates["key_decay"], beta=gates.get("beta"))[0]
        return memory_chunks(
            q,
            k,
            v,
            log_decay=gates.get("log_decay"),
            beta=gates.get("beta"),
            log_momentum=gates.get("log_momentum"),
            error=self.error,
        )[0]

    def tensors(self, x: dict[str, Tensor]) -> list[Tensor | None]:
        """As the launches take them, without an initial state and cu_seqlens."""
        gates = ("key_decay", "beta") if self.vector else ("log_decay", "beta", "log_momentum")
        return [*(x.get(name) for name in ("q", "k", "v", *gates)), None, None]

    def problem(self, x: dict[str, Tensor], launches: tuple[Launch, Launch]) -> Problem:
        tensors, scale = self.tensors(x), x["q"].shape[-1] ** -0.5
        if self.vector:
            return gla_launch.gla_problem(tensors, scale, launches)
        place = get_args(Error).index(self.error)
        return memory_launch.problem_of(tensors, place, scale, 64, launches)

    def forward(self, p: Problem, x: dict[str, Tensor], save: bool) -> list[Any]:
        kernels = gla_launch if self.vector else memory_launch
        return kernels.launch_forward(p, self.tensors(x), save)

    def backward(
        self, p: Problem, x: dict[str, Tensor], d_o: Tensor, kept: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        if self.vector:
            return gla_launch.launch_backward(p, self.tensors(x), d_o, None, kept)
        return memory_launch.launch_backward(p, self.tensors(x), d_o, None, kept)


MEMORIES = (
    Memory("Gated DeltaNet", "after_decay", ("log_decay", "beta")),
    Memory("GLA", gates=("key_decay",)),
    Memory("KDA", "after_decay", ("key_decay", "beta")),
    Memory("linear attention"),
    Memory("DeltaNet", "before_decay", ("beta",)),
    Memory("Titans", "before_decay", ("log_decay", "beta", "log_momentum")),
    Memory("RetNet", gates=("log_decay",)),
)


def candidates(memory: Memory, width: int) -> list[Launch]:
    """Launches worth trying: many sizes for the main operation, fewer for its relatives."""
    heavy = width > 64 or "log_momentum" in memory.gates
    if memory.name == "KDA":
        sizes = [(16, 4), (16, 8), (32, 4), (32, 8)]
    elif memory.vector:
        sizes = [(16, 2), (16, 4), (32, 4), (32, 8)]
    elif heavy:
        sizes = [(16, 4), (16, 8), (32, 4), (32, 8), (64, 8)]
    else:
        sizes = [(16, 1), (16, 2), (16, 4), (32, 2), (32, 4), (32, 8), (64, 4), (64, 8)]
    found = [Launch(chunk, warps) for chunk, warps in sizes]
    if memory.name == "Gated DeltaNet":
        found += [Launch(chunk, warps, stages=2) for chunk, warps in sizes]
        for chunk, warps in sizes:
            programs = [65536 // (32 * warps) // n // 8 * 8 for n in (2, 3, 4, 5, 6)]
            found += [Launch(chunk, warps, 1, None, n) for n in programs if 96 <= n <= 168]
    return found


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
        "key_decay": -0.1 * randn(*lead, shape.width).abs().to(dtype),
    }
    if "log_momentum" in memory.gates:
        gates["beta"] = 0.2 * gates["beta"]
    return x | {name: gates[name] for name in memory.gates}


def runs(memory: Memory, x: dict[str, Tensor], part: str, launch: Launch) -> Callable[[], Any]:
    """The kernel of that pass with that launch; a backward pass has a forward pass before it."""
    p = memory.problem(x, (launch, launch))
    if part != "backward":
        return lambda: memory.forward(p, x, part != "forward")
    before = replace(launch, registers=None)
    o, _, *kept = memory.forward(p._replace(launches=(before, before)), x, True)
    d_o = torch.randn(o.shape, device=o.device).to(o.dtype)
    return lambda: memory.backward(p, x, d_o, kept)


def compile_one(job: tuple[Memory, int, Launch]) -> str | None:
    """What went wrong, if something did."""
    memory, width, launch = job
    try:
        for part, length in itertools.product(PASSES, (64, 128)):  # the only chunk, one of several
            x = inputs(memory, Shape(1, length, 4, width), "cuda", torch.bfloat16)
            runs(memory, x, part, launch)()
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:100]
    return None


@cache
def errors(memory: Memory, width: int, launch: Launch) -> tuple[float, float]:
    """Relative errors of the output, and of the worst gradient, against float64."""
    x = inputs(memory, Shape(4, 300, 4, width), "cuda", torch.bfloat16)
    leaves = {n: t.double().requires_grad_() for n, t in x.items()}
    wanted = memory.exact(**leaves | {"q": leaves["q"] * width**-0.5})
    d_o = torch.randn_like(wanted).bfloat16()
    exact = torch.autograd.grad(wanted, list(leaves.values()), d_o.double())
    p = memory.problem(x, (launch, launch))
    o, _, *kept = memory.forward(p, x, True)
    got = [g for g in memory.backward(p, x, d_o, kept) if g is not None]

    def away(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b).norm() / b.norm())

    return away(o, wanted.detach()), max(map(away, got, exact))


def compiled(
    memory: Memory, widths: Sequence[int], pool: multiprocessing.pool.Pool, patience: float
) -> dict[int, list[Launch]]:
    """The candidates for each width that compile and run within so many seconds."""
    started = time.perf_counter()
    jobs = [(memory, width, launch) for width in widths for launch in candidates(memory, width)]
    running = [pool.apply_async(compile_one, (job,)) for job in jobs]
    failures = []
    for result in running:
        try:
            failures.append(result.get(max(0.0, started + patience - time.perf_counter())))
        except multiprocessing.TimeoutError:
            failures.append(f"has not run after {patience:.0f} s")
    took = time.perf_counter() - started
    print(f"{memory.name}: {len(jobs)} launches compiled in {took:.0f} s", flush=True)
    good: dict[int, list[Launch]] = {width: [] for width in widths}
    for (_, width, launch), failure in zip(jobs, failures, strict=True):
        if failure is None:
            good[width].append(launch)
        else:
            print(f"   left out: D{width}, {launch}: {failure}", flush=True)
    return good


def tune(
    memory: Memory, shape: Shape, launches: Sequence[Launch], best: int
) -> list[dict[str, Any]]:
    """Rows of all launches, the fastest first; so many of them are printed."""
    clock, rows = Clock(torch.device("cuda")), []
    wrong = {launch: errors(memory, shape.width, launch) for launch in launches}
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
        report(rows[len(rows) - len(times) :][:best])
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """Launches of one pass."""
    head = f"{rows[0]['operation']:18}{rows[0]['shape']:16}{rows[0]['pass']:20}"
    for row in rows:
        launch = Launch(**{name: row[name] for name in Launch.__dataclass_fields__})
        sizes = " ".join(f"{n} {v}" for n, v in asdict(launch).items() if v is not None)
        away = " ".join(f"{e:.0e}" for e in row["error"])
        print(f"{head}{row['median_us']:9.1f} µs  {sizes:40} errors {away}", flush=True)
        head = " " * len(head)


def leave(code: int) -> NoReturn:
    """Ends all: a pool would wait for a process that hangs in a kernel, or died with its lock."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    parser.add_argument("--only", nargs="*", help="operations, by the start of their name")
    parser.add_argument("--shapes", nargs="*", help="such as 'B256 T64'")
    parser.add_argument("--best", type=int, default=4, help="launches to print of each pass")
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds for compiling an operation's launches"
    )
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("launches are tuned on a CUDA device; there is none")
    chosen = [m for m in MEMORIES if m.name.startswith(tuple(arguments.only or [""]))]
    shapes = [s for s in SHAPES if str(s) in (arguments.shapes or map(str, SHAPES))]
    widths, rows = sorted({shape.width for shape in shapes}), []
    # A process a launch: one that fails leaves nothing behind that fails others.
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(arguments.processes, maxtasksperchild=1)
    try:
        for memory in chosen:
            launches = compiled(memory, widths, pool, arguments.patience)
            for shape in [s for s in shapes if launches[s.width]]:
                rows += tune(memory, shape, launches[shape.width], arguments.best)
                if arguments.out is not None:
                    found = {"device": torch.cuda.get_device_name(), "rows": rows}
                    write_json(arguments.out, found)
    except KeyboardInterrupt:
        leave(130)
    leave(0)


if __name__ == "__main__":
    main()
