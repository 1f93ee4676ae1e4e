"""Time the memory operations beside other libraries, and beside what the device allows.

Each operation at each shape: kernels alone (in a CUDA graph), wall time of a call, and the time
until it returns (host), forward and forward with backward, in bfloat16. Others tune themselves for
every shape they see, so they are measured at some of the shapes; first all is called once in
processes side by side, which fills Triton's cache. Libraries that cannot be imported are left out
with a notice. Rows go into a JSON file and a table into a Markdown file as they come.

    python scripts/bench_kernels.py --out docs/results/kernels/kernels
    python scripts/bench_kernels.py --only gated --shapes "B256 T64" --no-peers
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_timing import Clock, Report, timed
from torch import Tensor
from torch.nn.functional import linear, logsigmoid, normalize, scaled_dot_product_attention

import hypercrl_kernels as ops
from hypercrl.base.strict_json import write_json

Inputs = dict[str, Tensor]
Function = Callable[[Inputs], Any]


@dataclass(frozen=True)
class Shape:
    batch: int
    length: int
    heads: int = 4
    width: int = 64

    def __str__(self) -> str:
        wide = "" if self.width == 64 else f" D{self.width}"
        return f"B{self.batch} T{self.length}{wide}"


SHAPES = (
    Shape(256, 64),
    Shape(256, 512),
    Shape(64, 1024),
    Shape(16, 4096),
    Shape(64, 1024, width=128),
)
TITANS_SHAPES = (Shape(32, 64), Shape(256, 64), Shape(32, 512), Shape(4, 4096))
STEP_SHAPES = (Shape(1, 1), Shape(64, 1), Shape(4096, 1))
PEER_SHAPES = (Shape(256, 64), Shape(64, 1024), Shape(32, 64), *STEP_SHAPES)


@dataclass(frozen=True)
class Operation:
    """One operation, the same by other libraries, and what it must do at least.

    Attributes:
        ours, peers: from the inputs to the output, or to a tuple that starts with it.
        inputs: names of the inputs, of which all but the sequences are gates.
        state: numbers of one head's state, per D²; they are written once.
        backward: also timed with its backward pass.
    """

    name: str
    ours: Function
    inputs: tuple[str, ...]
    peers: Mapping[str, Function] = field(default_factory=dict)
    shapes: tuple[Shape, ...] = SHAPES
    state: float = 1.0
    backward: bool = True
    step: bool = False


def fla(module: str, name: str, *order: str, **options: Any) -> Function:
    """A function of flash-linear-attention, imported at the first call."""

    def call(x: Inputs) -> Any:
        function = getattr(__import__(f"fla.ops.{module}", fromlist=[name]), name)
        return function(*(x[n] for n in order), **options)

    return call


def fla_gated(module: str, name: str, **options: Any) -> Function:
    def call(x: Inputs) -> Any:
        function = getattr(__import__(f"fla.ops.{module}", fromlist=[name]), name)
        gates = {key: x[n] for key, n in (("g", "log_decay"), ("beta", "beta")) if n in x}
        return function(q=x["q"], k=x["k"], v=x["v"], **gates, **options)

    return call


def sdpa(x: Inputs) -> Tensor:
    q, k, v = (x[n].transpose(1, 2) for n in "qkv")
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def memory(**options: Any) -> Function:
    def call(x: Inputs) -> Any:
        gates = {n: t for n, t in x.items() if n not in "qkv"}
        return ops.chunk_memory(x["q"], x["k"], x["v"], **gates, **options)

    return call


def memory_step(**options: Any) -> Function:
    def call(x: Inputs) -> Any:
        gates = {n: t[:, 0] for n, t in x.items() if n not in ("q", "k", "v", "state")}
        now = (x[n][:, 0] for n in "qkv")
        return ops.memory_step(*now, **gates, state=x["state"], **options)

    return call


def fla_step(x: Inputs) -> Any:
    from fla.ops.gated_delta_rule import (  # pyright: ignore[reportMissingImports]
        fused_recurrent_gated_delta_rule,
    )

    return fused_recurrent_gated_delta_rule(
        x["q"], x["k"], x["v"], x["log_decay"], beta=x["beta"], initial_state=x["state"],
        output_final_state=True,
    )  # fmt: skip


def titans(x: Inputs) -> Any:
    """Projections, gates and the MLP memory: what NeuralMemory does with a sequence."""
    batch, length, _ = x["sequence"].shape
    q, k, v = linear(x["sequence"], x["projections"]).view(batch, length, 3, 4, 64).unbind(2)
    log_decay, beta, log_momentum = (
        linear(x["sequence"], x["gates"]).view(batch, length, 3, 4).unbind(2)
    )
    return ops.chunk_mlp_memory(
        q, k, v, unit_keys=True,
        initial_state=ops.MLPState.fresh(x["w1"], x["w2"], batch),
        log_decay=logsigmoid(log_decay + 4), beta=0.1 * beta.sigmoid(),
        log_momentum=logsigmoid(log_momentum), chunk=64,
    )  # fmt: skip


_neural_memory: list[torch.nn.Module] = []


def titans_pytorch(x: Inputs) -> Any:
    if not _neural_memory:
        from titans_pytorch import NeuralMemory  # pyright: ignore[reportMissingImports]

        module = NeuralMemory(dim=256, heads=4, dim_head=64, chunk_size=64)
        _neural_memory.append(module.to(x["sequence"]))
    return _neural_memory[0](x["sequence"])


OPERATIONS = (
    Operation(
        "linear attention",
        memory(),
        ("q", "k", "v"),
        {
            "flash-linear-attention": fla(
                "linear_attn",
                "chunk_linear_attn",
                "q",
                "k",
                "v",
                normalize=False,
                output_final_state=True,
            ),
            "SDPA": sdpa,
        },
    ),
    Operation(
        "RetNet",
        memory(),
        ("q", "k", "v", "head_decay"),
        {"flash-linear-attention": fla("retention", "chunk_retention", "q", "k", "v")},
    ),
    Operation(
        "DeltaNet",
        memory(error="before_decay"),
        ("q", "k", "v", "beta"),
        {"flash-linear-attention": fla_gated("delta_rule", "chunk_delta_rule")},
    ),
    Operation(
        "Gated DeltaNet",
        memory(error="after_decay"),
        ("q", "k", "v", "log_decay", "beta"),
        {
            "flash-linear-attention": fla_gated(
                "gated_delta_rule", "chunk_gated_delta_rule", output_final_state=True
            )
        },
    ),
    Operation(
        "Titans, linear memory",
        memory(error="before_decay"),
        ("q", "k", "v", "log_decay", "beta", "log_momentum"),
        state=2.0,
    ),
    Operation(
        "GLA",
        lambda x: ops.chunk_gla(x["q"], x["k"], x["v"], log_decay=x["key_decay"]),
        ("q", "k", "v", "key_decay"),
        {
            "flash-linear-attention": fla(
                "gla", "chunk_gla", "q", "k", "v", "key_decay", output_final_state=True
            )
        },
    ),
    Operation(
        "KDA",
        lambda x: ops.chunk_memory(
            x["q"], x["k"], x["v"], log_decay=x["key_decay"], beta=x["beta"], error="after_decay"
        ),
        ("q", "k", "v", "key_decay", "beta"),
        {
            "flash-linear-attention": fla(
                "kda", "chunk_kda", "q", "k", "v", "key_decay", "beta", output_final_state=True
            )
        },
    ),
    Operation(
        "HGRN",
        lambda x: ops.scan(x["v"], log_decay=x["key_decay"]),
        ("v", "key_decay"),
        {
            "flash-linear-attention": lambda x: fla("hgrn", "chunk_hgrn", "v", "key_decay")(
                {n: t.flatten(2) for n, t in x.items()}
            )
        },
        state=1 / 64,
    ),
    Operation(
        "BASED",
        lambda x: ops.based(x["q16"], x["k16"], x["v"]),
        ("q16", "k16", "v"),
        {
            "flash-linear-attention": lambda x: fla("based", "fused_chunk_based", "q", "k", "v")(
                {n[0]: t for n, t in x.items()}
            )
        },
        shapes=SHAPES[:4],
        state=2.4,
    ),
    Operation(
        "Titans, MLP memory",
        titans,
        ("sequence", "projections", "gates", "w1", "w2"),
        {"titans-pytorch": titans_pytorch},
        shapes=TITANS_SHAPES,
        state=16.0,
    ),
    Operation(
        "Gated DeltaNet step",
        memory_step(error="after_decay"),
        ("q", "k", "v", "log_decay", "beta", "state"),
        {"flash-linear-attention": fla_step},
        shapes=STEP_SHAPES,
        backward=False,
        step=True,
    ),
)


def make(names: tuple[str, ...], shape: Shape, device: torch.device) -> Inputs:
    """Random inputs by name; sequences in bfloat16, gates and states in float32."""
    g = torch.Generator(device).manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, device=device)

    lead = (shape.batch, shape.length, shape.heads)
    every: dict[str, Callable[[], Tensor]] = {
        "q": lambda: normalize(randn(*lead, shape.width), dim=-1).bfloat16(),
        "k": lambda: normalize(randn(*lead, shape.width), dim=-1).bfloat16(),
        "v": lambda: randn(*lead, shape.width).bfloat16(),
        "q16": lambda: randn(*lead, 16).bfloat16(),
        "k16": lambda: randn(*lead, 16).bfloat16(),
        "head_decay": lambda: torch.log1p(
            -(2.0 ** -(5 + torch.arange(shape.heads, device=device)))
        ),
        "log_decay": lambda: -0.1 * randn(*lead).abs(),
        "beta": lambda: randn(*lead).sigmoid(),
        "log_momentum": lambda: -randn(*lead).abs() - 0.3,
        "key_decay": lambda: -0.1 * randn(*lead, shape.width).abs().bfloat16(),
        "state": lambda: randn(shape.batch, shape.heads, shape.width, shape.width),
        "sequence": lambda: randn(shape.batch, shape.length, 256).bfloat16(),
        "projections": lambda: (randn(768, 256) / 16).bfloat16(),
        "gates": lambda: (randn(12, 256) / 16).bfloat16(),
        "w1": lambda: randn(4, 64, 256) / 8,
        "w2": lambda: randn(4, 256, 64) / 16,
    }
    x = {name: every[name]() for name in names}
    if "head_decay" in x:
        x["log_decay"] = x.pop("head_decay")
    return x


def forward_only(function: Function, x: Inputs) -> Callable[[], Any]:
    @torch.no_grad()
    def call() -> Any:
        return function(x)

    return call


def with_backward(function: Function, x: Inputs) -> Callable[[], Any]:
    leaves = {n: t.detach().clone().requires_grad_() for n, t in x.items()}
    cotangents: list[Tensor] = []

    def call() -> Any:
        o = _output(function(leaves))
        if not cotangents:
            cotangents.append(torch.randn_like(o))
        inputs = [t for n, t in leaves.items() if n != "state"]
        return torch.autograd.grad(o, inputs, cotangents[0], allow_unused=True)

    return call


class OneLaunch(torch.autograd.Function):
    """One launch forward and one backward: what torch itself takes for a call of five inputs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:  # noqa: ARG004
        return inputs[0].clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        return (grad_outputs[0].clone(),) * 5


def least_walls(clock: Clock, device: torch.device) -> dict[str, float]:
    """Wall time of `OneLaunch`; autograd has a thread for a device's nodes, or runs them here."""
    x = {name: torch.zeros(16, device=device) for name in "abcde"}
    apply = lambda x: OneLaunch.apply(*x.values())  # noqa: E731
    both = with_backward(apply, x)
    walls = {"forward": clock.eager(forward_only(apply, x)).median}
    walls["forward+backward"] = clock.eager(both).median
    with torch.autograd.set_multithreading_enabled(False):
        walls["on one thread"] = clock.eager(both).median
    return walls


def _output(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


@dataclass(frozen=True)
class Device:
    """What the device reaches: bytes and float operations a microsecond."""

    bandwidth: float
    rate: float

    @classmethod
    def measure(cls, clock: Clock, device: torch.device) -> Device:
        source = torch.randn(2**28 if clock.cuda else 2**24, device=device)
        target = torch.empty_like(source)
        copied = 2 * source.nbytes / clock.graph(lambda: target.copy_(source), calls=2).median
        size = 8192 if clock.cuda else 1024
        a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        multiplied = 2 * size**3 / clock.graph(lambda: a @ a, calls=2).median
        return cls(copied, multiplied)

    def floors(self, operation: Operation, shape: Shape, backward: bool) -> dict[str, float]:
        """Microseconds that bytes and arithmetic of the operation take at least."""
        steps = shape.batch * shape.length * shape.heads
        sequences = sum(n in ("q", "k", "v", "key_decay") for n in operation.inputs) + 1
        gates = sum(n in ("log_decay", "beta", "log_momentum") for n in operation.inputs)
        moved = steps * (2 * shape.width * sequences + 4 * gates)
        state = 4 * shape.batch * shape.heads * operation.state * shape.width**2
        passes = 1 + 2 * backward  # the backward pass reads all again and writes as much
        moved = passes * moved + (2 if operation.step else 1) * state
        flops = 6 * operation.state * shape.width**2 * steps * passes
        return {"bytes": moved / self.bandwidth, "arithmetic": flops / self.rate}


Job = tuple[str, Shape, str]  # an operation, a shape and a library


def functions_at(operation: Operation, shape: Shape, peers: bool) -> dict[str, Function]:
    """By library; ours is the first."""
    others = operation.peers if peers and shape in PEER_SHAPES else {}
    return {"hypercrl": operation.ours, **others}


def warm_one(job: Job) -> None:
    """Compile and tune in a process of its own; what fails will be reported by the measurement."""
    name, shape, library = job
    operation = next(o for o in OPERATIONS if o.name == name)
    function = functions_at(operation, shape, True)[library]
    x = make(operation.inputs, shape, torch.device("cuda"))
    try:
        forward_only(function, x)()
        if operation.backward:
            with_backward(function, x)()
        torch.cuda.synchronize()
    except Exception as error:
        print(f"      {name} {shape} by {library}: {type(error).__name__}", flush=True)


def bench(
    operation: Operation, shape: Shape, clock: Clock, report: Report, limits: Device, peers: bool
) -> None:
    device = torch.device("cuda" if clock.cuda else "cpu")
    x = make(operation.inputs, shape, device)
    functions = functions_at(operation, shape, peers)
    wanted = None
    for name, function in functions.items():
        try:
            with torch.no_grad():
                o = _output(function({n: t.clone() for n, t in x.items()})).float()
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            print(f"      {operation.name} by {name} left out: {line}", flush=True)
            report.rows.append(
                {"workload": operation.name, "shape": str(shape), "variant": name, "error": line}
            )
            continue
        wanted = o.flatten() if wanted is None else wanted
        same = o.numel() == wanted.numel()
        away = float((o.flatten() - wanted).norm() / wanted.norm()) if same else float("nan")
        calls: dict[str, Callable[[], Any]] = {"forward": forward_only(function, x)}
        if operation.backward:
            calls["forward+backward"] = with_backward(function, x)
        for part, call in calls.items():
            host = partial(clock.eager, wait=False)
            for kind, measure in (("kernels", clock.graph), ("wall", clock.eager), ("host", host)):
                row = report.attempt(
                    f"{operation.name} {shape} ", f"{part} ", f"{name}, {kind}",
                    lambda measure=measure, call=call, e=away: timed(measure(call), relative=e),
                )  # fmt: skip
                row |= {"operation": operation.name, "shape": str(shape), "library": name}
                row |= {
                    "pass": part,
                    "kind": kind,
                    "floor": limits.floors(operation, shape, "+" in part),
                }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per operation, shape and pass."""
    lines = [
        "| operation | shape | pass | kernels | best peer | floor | wall | best peer | host |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((r["operation"], r["shape"], r["pass"]) for r in rows if "kind" in r)
    for operation, shape, part in keys:
        cells = [operation, shape, part]
        here = [
            r
            for r in rows
            if (r.get("operation"), r["shape"], r.get("pass")) == (operation, shape, part)
        ]
        for kind in ("kernels", "wall", "host"):
            times = {
                r["library"]: r["median_us"]
                for r in here
                if r.get("kind") == kind and "median_us" in r
            }
            own = times.pop("hypercrl", None)
            cells.append("–" if own is None else f"{own:.1f}")
            if kind == "host":
                continue
            best = min(times, key=lambda n: times[n], default=None)
            failed = [r["library"] for r in here if r.get("kind") == kind and "error" in r]
            others = [f"fails ({n})" for n in failed if n != "hypercrl"]
            others += [] if best is None else [f"{times[best]:.1f} ({best})"]
            cells.append(", ".join(others) or "–")
            if kind == "kernels":
                floor = next(r["floor"] for r in here if "floor" in r)
                cells.append(f"{max(floor.values()):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="path without suffix for a .json and a .md file")
    parser.add_argument("--only", nargs="*", help="operations, by the start of their name")
    parser.add_argument("--shapes", nargs="*", help="such as 'B256 T64'")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, report = Clock(device), Report()
    name = torch.cuda.get_device_name() if clock.cuda else "cpu"
    limits = Device.measure(clock, device)
    print(
        f"torch {torch.__version__} on {name}: {limits.bandwidth / 1e6:.2f} TB/s copied,", end=" "
    )
    print(f"{limits.rate / 1e6:.0f} TFLOP/s in bfloat16", flush=True)
    walls = least_walls(clock, device)
    print("one launch: " + ", ".join(f"{part} {t:.0f} µs" for part, t in walls.items()), flush=True)
    only = tuple(start.lower() for start in arguments.only or [""])
    work = [
        (operation, shape)
        for operation in OPERATIONS
        for shape in operation.shapes
        if operation.name.lower().startswith(only)
        and (not arguments.shapes or str(shape) in arguments.shapes)
    ]
    if clock.cuda:
        jobs = [
            (operation.name, shape, library)
            for operation, shape in work
            for library in functions_at(operation, shape, arguments.peers)
        ]
        # Others first: they have more to do.
        jobs.sort(key=lambda job: job[2] == "hypercrl")
        context = multiprocessing.get_context("spawn")
        with context.Pool(arguments.processes, maxtasksperchild=4) as pool:
            pool.map(warm_one, jobs, chunksize=1)
        print(f"{time.perf_counter() - report.started:5.0f}s compiled", flush=True)
    for operation, shape in work:
        bench(operation, shape, clock, report, limits, arguments.peers)
        save(report, name, limits, arguments.out)
    print("\nmedian µs on " + name + "\n\n" + table(report.rows))


def save(report: Report, name: str, limits: Device, out: Path | None) -> None:
    """After each shape: what is measured stays measured."""
    if out is None:
        return
    device = {"device": name, "torch": torch.__version__, **limits.__dict__}
    write_json(out.with_suffix(".json"), {**device, "rows": report.rows})
    note = f"Median µs on {name}. –: not measured; peers are at some shapes alone.\n\n"
    out.with_suffix(".md").write_text(note + table(report.rows))


if __name__ == "__main__":
    main()
