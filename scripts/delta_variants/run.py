"""Variants of the delta rules' four kernels: each beside float64, then all timed in one process.

python scripts/delta_variants/run.py
TRITON_INTERPRET=1 python scripts/delta_variants/run.py --device cpu      # are they right?
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "kernels"), str(HERE.parents[1])]
import torch
from bench_kernels import OPERATIONS, Shape, forward_only, make, with_backward
from bench_timing import Clock
from gradients_once import gradients_once_kernel
from inverse_scores import inverse_scores_kernel
from torch import Tensor
from tune_memory import MEMORIES, inputs
from walk_scores import walk_back_scores_kernel, walk_scores_kernel

from hypercrl_kernels.memory.chunk_memory import split_launch
from hypercrl_kernels.memory.chunk_memory.launch import Launch, Problem
from hypercrl_kernels.memory.operators import blocks, padded, unwritten

START = time.time()
CHUNK = split_launch.CHUNK
main_forward, main_backward = split_launch.launch_forward, split_launch.launch_backward


class Way(NamedTuple):
    """`before`: A by the inverse's kernel and read by both walks; `kept`: by the walk that saves,
    read by the walk back; `fold`: nobody keeps it. main: the kernels as they are."""

    scores: str
    gradients: Launch | None = None  # None: as they are
    block: int = 64  # values of one program of the walks
    registers: int | None = None  # of the walks

    def __str__(self) -> str:
        if self.gradients is None:
            return self.scores + ("" if self.block == 64 else f" b{self.block} r{self.registers}")
        g = self.gradients
        return f"{self.scores} once b{g.block} w{g.warps} s{g.stages} r{g.registers}"


MAIN = Way("main")
ONCE = {
    128: [Launch(CHUNK, 8, s, 64) for s in (1, 2, 3)],
    64: [
        Launch(CHUNK, 8, 3, 32),
        Launch(CHUNK, 8, 2, 32, 128),
        Launch(CHUNK, 4, 2, 32),
        Launch(CHUNK, 8, 1, 64),
    ],
}
SCORES = [Way("before"), Way("kept"), Way("fold"), Way("signed")]
ROWS = (("Gated DeltaNet", 128), ("DeltaNet", 128), ("Gated DeltaNet", 64))


def ways(width: int) -> list[Way]:
    few = [Way("before", None, 32, 168)] if width == 64 else []
    return [
        MAIN,
        *SCORES,
        *few,
        *(Way("main", g) for g in ONCE.get(width, [Launch(CHUNK, 4, 1, 16)])),
    ]


@lru_cache(None)
def prepared(p: Problem, way: Way, save: bool, ends: bool):
    split = next(s for s in split_launch.SPLITS if max(p.keys, p.values) <= s.widest)
    constants = split_launch._constants(p) | {
        "SAVE": save,
        "ENDS": ends,
        "GIVEN": way.scores == "before",
        "SIGNED": True,
    }
    block = min(way.block, split_launch._block(p, split.walk))
    chunks, walks = (p.slots(CHUNK) * p.heads,), (blocks(p.values, block), p.segments * p.heads)
    go, come = (Launch(CHUNK, 4, 2, 64, way.registers) for _ in range(2))
    old = way.scores == "main"
    taken = way.gradients or split.gradients
    make_one = split_launch._prepared
    walk = constants | {"BLOCK": block}
    return (
        make_one(
            split_launch.inverse_kernel
            if way.scores in ("main", "kept", "fold")
            else inverse_scores_kernel,
            chunks,
            constants,
            split.inverse,
        ),
        make_one(
            split_launch.walk_kernel if old or way.scores == "signed" else walk_scores_kernel,
            walks,
            walk,
            go,
        ),
        make_one(
            split_launch.walk_back_kernel
            if way.scores in ("main", "fold", "signed")
            else walk_back_scores_kernel,
            walks,
            walk,
            come,
        ),
        make_one(
            gradients_once_kernel if way.gradients else split_launch.gradients_kernel,
            chunks,
            constants | {"BLOCK": min(taken.block or p.values, padded(p.values))},
            taken,
        ),
    )


def square(p: Problem) -> Tensor:
    return torch.empty(p.slots(CHUNK), p.heads, CHUNK, CHUNK, dtype=p.dtype, device=p.device)


def calls_forward(p: Problem, way: Way, tensors, save: bool, made):
    """The two launches, and what is kept of the scores."""
    q, k, v, log_decay, beta, _, initial, cu = tensors
    o, final, states, inverse, sums, errors = made
    kept = square(p) if way.scores == "before" or (way.scores == "kept" and save) else None
    inv, walk, *_ = prepared(p, way, save, False)
    if way.scores == "before":
        first = lambda: inv((q, k, log_decay, beta, cu, inverse, sums, kept))
    elif way.scores == "signed":
        first = lambda: inv((None, k, log_decay, beta, cu, inverse, sums, None))
    else:
        first = lambda: inv((k, log_decay, beta, cu, inverse, sums))
    middle = () if way.scores in ("main", "signed") else (kept,)
    second = lambda: walk(
        (q, k, v, beta, initial, cu, inverse, sums, *middle, o, final, states, errors)
    )
    return first, second, kept


def calls_backward(p: Problem, way: Way, tensors, d_o, d_final, kept, written, scores, d_states):
    q, k, _, _, beta, _, _, cu = tensors
    states, inverse, sums, errors = kept
    _, _, back, rest = prepared(p, way, True, d_final is not None)
    d_q, d_k, d_v, d_decay, d_beta, _, d_initial = written
    middle = () if way.scores in ("main", "fold", "signed") else (scores,)
    return (
        lambda: back(
            (q, k, beta, d_o, d_final, cu, inverse, sums, *middle, d_v, d_states, d_initial)
        ),
        lambda: rest(
            (q, k, beta, d_o, d_v, cu, sums, states, d_states, errors, d_q, d_k, d_decay, d_beta)
        ),
    )


def backward(way: Way, p: Problem, tensors, d_o, d_final, kept, scores):
    written = unwritten(p.gradients(), p.device)
    for call in calls_backward(
        p, way, tensors, d_o, d_final, kept, written, scores, torch.empty_like(kept[0])
    ):
        call()
    return written


def use(plain: Way, saving: Way) -> None:
    """The operation itself takes these ways; a forward pass hands its scores to the next backward."""
    last: list[Any] = [None]

    def take_forward(p, split, tensors, save):
        made = unwritten(split_launch._outputs_once(p, save), p.device)
        whole = [
            *made[:3],
            *(made[3:5] if save else unwritten(split_launch._made_before_once(p), p.device)),
            made[5],
        ]
        way = saving if save else plain
        first, second, last[0] = calls_forward(p, way, tensors, save, whole)
        first(), second()
        return made

    def take_backward(p, split, tensors, d_o, d_final, kept):
        return backward(saving, p, tensors, d_o, d_final, kept, last[0])

    split_launch.launch_forward = main_forward if plain == saving == MAIN else take_forward
    split_launch.launch_backward = main_backward if saving == MAIN else take_backward


def shape_of(width: int) -> Shape:
    return Shape(64, 1024, width=width) if width > 16 else Shape(1, 128, 1, 16)


def problem(name: str, x: dict[str, Tensor]):
    memory = next(m for m in MEMORIES if m.name == name)
    return (
        memory,
        memory.problem(x, (Launch(64, 4), Launch(64, 4)))._replace(launches=None),
        memory.tensors(x),
    )


def away(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


def check(job: tuple[str, int, Way, str, str]) -> str | float:
    """The largest error of output and gradients beside float64; what is not written is not a number."""
    name, width, way, kind, device = job
    dtype = getattr(torch, kind)
    shape = Shape(32, 192, 4, width) if device == "cuda" else Shape(1, 100, 2, width)
    x = inputs(next(m for m in MEMORIES if m.name == name), shape, device, dtype)
    memory, p, tensors = problem(name, x)
    made = [
        None if t is None else t.fill_(torch.nan)
        for t in unwritten(split_launch.outputs(p, True), p.device)
    ]
    first, second, scores = calls_forward(p, way, tensors, True, made)
    first(), second()
    alone = unwritten(split_launch.outputs(p, False), p.device)
    whole = [*alone[:3], *unwritten(split_launch._made_before(p), p.device), None]
    for call in calls_forward(p, way, tensors, False, whole)[:2]:
        call()
    g = torch.Generator().manual_seed(1)
    d_o = torch.randn(made[0].shape, generator=g).to(made[0])
    got = [t for t in backward(way, p, tensors, d_o, None, made[2:], scores) if t is not None]
    leaves = {n: t.double().requires_grad_() for n, t in x.items()}
    wanted = memory.exact(**leaves | {"q": leaves["q"] * width**-0.5})
    exact = torch.autograd.grad(wanted, list(leaves.values()), d_o.double())
    found = [
        away(made[0], wanted.detach()),
        away(alone[0], wanted.detach()),
        *map(away, got, exact),
    ]
    return max(found) if all(f == f for f in found) else float("nan")


def guarded(job) -> str | float:
    try:
        return check(job)
    except Exception as error:
        return f"{type(error).__name__} {str(error)[:70]}".replace("\n", " ")


def warm(row: tuple[str, int]) -> None:
    name, width = row
    operation = next(o for o in OPERATIONS if o.name == name)
    x = make(operation.inputs, Shape(4, 128, width=width), torch.device("cuda"))
    forward_only(operation.ours, x)(), with_backward(operation.ours, x)()


def timed_row(name: str, width: int, good: Sequence[Way], clock: Clock) -> tuple[Way, Way]:
    """Lines of each kernel by itself; the fastest way of forward passes and gradients together."""
    memory = next(m for m in MEMORIES if m.name == name)
    x = inputs(
        memory,
        shape_of(width),
        "cuda" if clock.cuda else "cpu",
        torch.bfloat16 if clock.cuda else torch.float16,
    )
    _, p, tensors = problem(name, x)
    graph = lambda call: clock.graph(call, calls=3, repeats=8).median
    lines: dict[str, list[str]] = {
        part: [] for part in ("inverse", "walk", "walk that saves", "back", "gradients")
    }
    total, gradient = {}, {}
    for way in good:
        made = unwritten(split_launch.outputs(p, True), p.device)
        first, second, scores = calls_forward(p, way, tensors, True, made)
        first(), second()
        d_o, written = torch.randn_like(made[0]), unwritten(p.gradients(), p.device)
        third, fourth = calls_backward(
            p, way, tensors, d_o, None, made[2:], written, scores, torch.empty_like(made[2])
        )
        third(), fourth()
        if way.gradients is None:
            alone = [*made[:2], None, *made[3:5], None]
            _, plain, _ = calls_forward(p, way, tensors, False, alone)
            times = [graph(call) for call in (first, plain, second, third)]
            total[way] = times[0] + times[1], times[0] + times[2] + times[3]
            for part, t in zip(lines, times, strict=False):
                lines[part].append(f"{way} {t:.0f}")
        if way.gradients is not None or way == MAIN:
            gradient[way] = graph(fourth)
            lines["gradients"].append(f"{str(way).removeprefix('main once ')} {gradient[way]:.0f}")
    for part, found in lines.items():
        print(f"{name[:5]} D{width} {part:16}", " | ".join(found), flush=True)
    plain, saving = (min(total, key=lambda way, n=n: total[way][n]) for n in (0, 1))
    rest = min(gradient, key=gradient.__getitem__)
    return plain, saving._replace(gradients=rest.gradients)


def whole(name: str, width: int, best: tuple[Way, Way], clock: Clock) -> None:
    operation = next(o for o in OPERATIONS if o.name == name)
    x = make(operation.inputs, shape_of(width), torch.device("cuda" if clock.cuda else "cpu"))
    if not clock.cuda:
        split_launch.choose_split = lambda *_: split_launch.SPLITS[0]
    for way in dict.fromkeys(((MAIN, MAIN), best)):
        use(*way)
        calls: list[Callable[[], Any]] = [
            forward_only(operation.ours, x),
            with_backward(operation.ours, x),
        ]
        alone = [clock.graph(call, calls=3, repeats=10).median for call in calls]
        walls = [clock.eager(call, repeats=10).median for call in calls]
        print(
            f"{name[:5]} D{width} whole: {way[0]}, {way[1]}: kernels {alone[0]:.0f} / {alone[1]:.0f}, wall {walls[0]:.0f} / {walls[1]:.0f}",
            flush=True,
        )
    use(MAIN, MAIN)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--widths", type=int, default=16, help="of the CPU's checks")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        for name in ("Gated DeltaNet", "DeltaNet"):
            for way in ways(arguments.widths):
                print(
                    name,
                    way,
                    *(
                        f"{kind} {guarded((name, arguments.widths, way, kind, 'cpu'))}"
                        for kind in ("float32", "float16")
                    ),
                    flush=True,
                )
            clock = Clock(torch.device("cpu"))
            whole(name, 16, timed_row(name, 16, ways(16), clock), clock)
        return
    jobs = [(*row, way, "bfloat16", "cuda") for row in ROWS for way in ways(row[1])]
    jobs.sort(key=lambda job: job[2].gradients is not None)  # those find all others compiled
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        running = [pool.apply_async(guarded, (job,)) for job in jobs]
        more = [pool.apply_async(warm, (row,)) for row in ROWS]
        found = {}
        for job, result in zip(jobs, running, strict=True):
            try:
                found[job] = result.get(max(0.5, 50 - (time.time() - START)))
            except multiprocessing.TimeoutError:
                found[job] = "not in time"
        for result in more:
            try:
                result.get(max(0.5, 52 - (time.time() - START)))
            except Exception as error:
                print("warm:", type(error).__name__, str(error)[:80])
        pool.terminate()
    bound = {row: found[*row, MAIN, "bfloat16", "cuda"] for row in ROWS}
    fine = lambda e, row: (
        isinstance(e, float)
        and e < 1.25 * max(bound[row] if isinstance(bound[row], float) else 0, 0.02)
    )
    for row in ROWS:
        of = {job[2]: e for job, e in found.items() if job[:2] == row}
        print(
            f"{time.time() - START:.0f} s",
            row[0][:5],
            f"D{row[1]} errors:",
            ", ".join(
                f"{w} {e:.1e}" if isinstance(e, float) else f"{w} {e}" for w, e in of.items()
            ),
            flush=True,
        )
    clock, best = Clock(torch.device("cuda")), {}
    for row in ROWS:
        if time.time() - START < 75:
            try:
                best[row] = timed_row(
                    *row,
                    [w for w in ways(row[1]) if fine(found[*row, w, "bfloat16", "cuda"], row)],
                    clock,
                )
            except Exception as error:
                print(row, type(error).__name__, str(error)[:90])
    for row in best:
        if time.time() - START < 85:
            try:
                whole(*row, best[row], clock)
            except Exception as error:
                print(row, type(error).__name__, str(error)[:90])
    print(f"{time.time() - START:.0f} s")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
