"""Find the fastest launches of the delta rules' four kernels on this GPU; each is checked first.

Every candidate of every kernel is compiled, many at a time in processes of their own, and the whole
pass run with it on keys of a random walk and compared with float64. Then the kernel is timed alone
in a CUDA graph. At the end come the whole passes with the fastest, beside the fused kernels.
What comes out belongs into `SPLITS` of `hypercrl_kernels.memory.chunk_memory.split_launch`.

    python scripts/tune_split.py --out tuned.json
    TRITON_INTERPRET=1 python scripts/tune_split.py --device cpu      # does it run?
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from bench_kernels import OPERATIONS, Shape, forward_only, make, with_backward
from bench_timing import Clock
from torch import Tensor
from tune_memory import MEMORIES, Memory, inputs

from hypercrl.base.strict_json import write_json
from hypercrl_kernels.memory.chunk_memory import split_launch
from hypercrl_kernels.memory.chunk_memory.launch import Launch
from hypercrl_kernels.memory.chunk_memory.split_launch import Split

LAUNCHES = {  # of which kernel: values at once, warps, stages, registers
    "inverse": [(None, 4, 1, None), (None, 4, 1, 128), (None, 8, 1, None)],
    "walk": [
        (64, 4, 1, None), (64, 4, 2, None), (64, 4, 1, 168),
        (32, 4, 1, None), (32, 4, 2, None), (32, 4, 1, 168),
    ],
    "walk_back": [
        (64, 4, 1, None), (64, 4, 2, None), (64, 4, 1, 168),
        (32, 4, 1, None), (32, 4, 2, None), (32, 4, 1, 168),
    ],
    "gradients": [
        (64, 8, 1, None), (64, 8, 2, None), (32, 8, 1, None), (32, 8, 2, None),
        (64, 8, 1, 128), (32, 8, 2, 128), (128, 8, 1, None), (64, 4, 1, None),
    ],
}  # fmt: skip
TUNED = (("Gated DeltaNet", 128), ("Gated DeltaNet", 64))
WHOLE = (
    ("Gated DeltaNet", Shape(64, 1024, width=128)),
    ("DeltaNet", Shape(64, 1024, width=128)),
    ("Gated DeltaNet", Shape(64, 1024)),
    ("DeltaNet", Shape(64, 1024)),
    ("Gated DeltaNet", Shape(256, 512)),
)
Job = tuple[str, int, str, Launch]  # a memory, its width, a kernel and its launch


def memory_of(name: str) -> Memory:
    return next(memory for memory in MEMORIES if memory.name == name)


def split_of(width: int) -> Split:
    return next(split for split in split_launch.SPLITS if width <= split.widest)


def candidates(width: int, cuda: bool) -> list[tuple[str, Launch]]:
    if not cuda:
        return [(kernel, Launch(split_launch.CHUNK, 4, block=16)) for kernel in LAUNCHES]
    return [
        (kernel, Launch(split_launch.CHUNK, warps, stages, block, registers))
        for kernel, sizes in LAUNCHES.items()
        for block, warps, stages, registers in sizes
        if block is None or block <= width
    ]


class Passes:
    """The four kernels with one choice of launches, on inputs of one shape."""

    def __init__(
        self, memory: Memory, x: dict[str, Tensor], split: Split, save: bool = True
    ) -> None:
        tensors, width = memory.tensors(x), x["q"].shape[-1]
        q, k, v, log_decay, beta, *_ = tensors
        assert q is not None
        problem = memory.problem(x, (Launch(64, 4), Launch(64, 4)))
        p = problem._replace(launches=None)
        self.launched = p, split, tensors
        o, final, *self.kept = split_launch.launch_forward(p, split, tensors, True)
        assert o is not None
        self.o = o
        self.d_o = torch.randn(o.shape, device=o.device).to(o.dtype)
        make_all, walk = split_launch.prepare_forward(p, split, save)
        back, rest = split_launch.prepare_backward(p, split, False)
        states, inverse, sums, errors = self.kept
        d_q, d_k, d_v, d_decay, d_beta, *_ = self.gradients()
        assert states is not None
        d_states = torch.empty_like(states)
        written = (states, errors) if save else (None, None)
        ends = (d_q, d_k, d_decay, d_beta)
        self.calls: dict[str, Callable[[], Any]] = {
            "inverse": lambda: make_all((k, log_decay, beta, None, inverse, sums)),
            "walk": lambda: walk(
                (q, k, v, beta, None, None, inverse, sums, o, final, *written)
            ),
            "walk_back": lambda: back(
                (q, k, beta, self.d_o, None, None, inverse, sums, d_v, d_states, None)
            ),
            "gradients": lambda: rest(
                (q, k, beta, self.d_o, d_v, None, sums, states, d_states, errors, *ends)
            ),
        }  # fmt: skip
        self.width = width
        self.calls["walk_back"]()  # what the gradients are made of are numbers

    def gradients(self) -> list[Tensor | None]:
        return split_launch.launch_backward(*self.launched, self.d_o, None, self.kept)


def error(memory: Memory, x: dict[str, Tensor], split: Split) -> float:
    """The largest relative error of the output and all gradients against float64."""
    passes = Passes(memory, x, split)
    leaves = {n: t.double().requires_grad_() for n, t in x.items()}
    wanted = memory.exact(**leaves | {"q": leaves["q"] * passes.width**-0.5})
    exact = torch.autograd.grad(wanted, list(leaves.values()), passes.d_o.double())
    got = [g for g in passes.gradients() if g is not None]

    def away(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b).norm() / b.norm())

    return max(away(passes.o, wanted.detach()), *map(away, got, exact))


def checked(device: str, job: Job) -> float | str:
    """The error, or what went wrong. In half precision 0.1 is wrong, too."""
    name, width, kernel, launch = job
    memory, split = memory_of(name), replace(split_of(width), **{kernel: launch})
    shape = Shape(32, 192, 4, width) if device == "cuda" else Shape(1, 128, 1, width)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    try:
        x = inputs(memory, shape, device, dtype)
        if kernel == "walk":  # compiled too
            Passes(memory, x, split, save=False).calls["walk"]()
        return error(memory, x, split)
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}".replace("\n", " ")[:100]


def check_on_gpu(job: Job) -> float | str:
    return checked("cuda", job)


def warm_one(job: tuple[str, Shape, Split | None]) -> None:
    """Compile both passes; None: the fused kernels. What fails will be seen again."""
    name, shape, split = job
    operation = next(o for o in OPERATIONS if o.name == name)
    x = make(operation.inputs, shape, torch.device("cuda"))
    split_launch.choose_split = lambda *_: split
    with contextlib.suppress(Exception):
        forward_only(operation.ours, x)()
        with_backward(operation.ours, x)()


def short(launch: Launch) -> str:
    sizes = {"b": launch.block, "w": launch.warps, "s": launch.stages, "r": launch.registers}
    return " ".join(f"{letter}{n}" for letter, n in sizes.items() if n is not None)


def tune(
    name: str, shape: Shape, good: Sequence[tuple[str, Launch, float]], clock: Clock
) -> tuple[Split, list[dict[str, Any]]]:
    """The fastest launches, and rows of all; prints a line a kernel."""
    memory, best, rows = memory_of(name), split_of(shape.width), []
    dtype = torch.bfloat16 if clock.cuda else torch.float16
    x = inputs(memory, shape, "cuda" if clock.cuda else "cpu", dtype)
    for kernel, save in (*((kernel, True) for kernel in LAUNCHES), ("walk", False)):
        found = []
        for launch, away in ((la, e) for k, la, e in good if k == kernel):
            passes = Passes(memory, x, replace(split_of(shape.width), **{kernel: launch}), save)
            time = clock.graph(passes.calls[kernel], calls=4, repeats=8).median
            found.append((time, launch))
            row = {"operation": name, "shape": str(shape), "kernel": kernel, "save": save}
            rows.append(row | {"median_us": time, "error": away, **asdict(launch)})
        found.sort(key=lambda pair: pair[0])
        if found and save:
            best = replace(best, **{kernel: found[0][1]})
        label = f"{kernel}{'' if save else ', not saving'}"
        line = " | ".join(f"{short(launch)} {time:.0f}" for time, launch in found[:6])
        print(f"D{shape.width:<4}{label:18}{line}", flush=True)
    return best, rows


def whole(best: dict[int, Split], clock: Clock) -> list[dict[str, Any]]:
    """Both passes by the fused kernels and by the four: µs of kernels alone."""
    rows, choose = [], split_launch.choose_split
    device = torch.device("cuda" if clock.cuda else "cpu")
    for name, shape in WHOLE:
        operation = next(o for o in OPERATIONS if o.name == name)
        x = make(operation.inputs, shape, device)
        found = {}
        for way, chosen in (("fused", None), ("split", best[shape.width])):
            split_launch.choose_split = lambda *_, chosen=chosen: chosen
            calls = forward_only(operation.ours, x), with_backward(operation.ours, x)
            found[way] = [clock.graph(call, calls=4, repeats=10).median for call in calls]
            rows.append({"operation": name, "shape": str(shape), "way": way, "us": found[way]})
        times = ", ".join(f"{way} {f:.0f} / {b:.0f}" for way, (f, b) in found.items())
        print(f"{name:15}{shape!s:16}{times}", flush=True)
    split_launch.choose_split = choose
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    arguments = parser.parse_args()
    clock = Clock(torch.device(arguments.device))
    tuned = [(name, width if clock.cuda else 16) for name, width in TUNED]
    jobs = [(name, width, *each) for name, width in tuned for each in candidates(width, clock.cuda)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes if clock.cuda else 1) as pool:
        if clock.cuda:
            warm = pool.map_async(warm_one, [(*each, None) for each in WHOLE], chunksize=1)
            errors = pool.map(check_on_gpu, jobs, chunksize=1)
            warm.wait()
        else:
            errors = [checked("cpu", job) for job in jobs]
        for job, away in zip(jobs, errors, strict=True):
            if not isinstance(away, float) or not away < 0.1:
                print(f"left out: D{job[1]} {job[2]} {short(job[3])}: {away}", flush=True)
        measured = [away for away in errors if isinstance(away, float)]
        print(f"{len(jobs)} launches, largest error {max(measured, default=torch.nan):.1e}")
        best, rows = {}, []
        for name, width in tuned:
            good = [
                (job[2], job[3], away)
                for job, away in zip(jobs, errors, strict=True)
                if job[:2] == (name, width) and isinstance(away, float) and away < 0.1
            ]
            shape = Shape(64, 1024, width=width) if clock.cuda else Shape(1, 128, 1, width)
            best[width], found = tune(name, shape, good, clock)
            rows += found
        if clock.cuda:
            pool.map(warm_one, [(*each, best[each[1].width]) for each in WHOLE], chunksize=1)
            rows += whole(best, clock)
    if arguments.out is not None:
        name = torch.cuda.get_device_name() if clock.cuda else "cpu"
        write_json(arguments.out, {"device": name, "rows": rows})


if __name__ == "__main__":
    main()
