"""Training steps of several runs on one GPU, by each way of sharing it.

- turns: a process each, which the driver lets at the GPU by turns
- MPS: a process each, whose kernels run at the same time through CUDA MPS
- streams: a thread each in one process, with a stream and a graph of its own
- batch: all in one graph of one process, side by side. It stands for steps batched over seeds,
  which like it have no lock and one launch, and fewer and larger kernels, which this cannot show

On a CPU they are tried in the same order, without graphs; MPS is refused there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_machine import Use, watched
from bench_sharing_grid import Record
from bench_training import make_batch, make_hnet
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.bench.gpus import NoAnswer, visible_gpus
from hypercrl.bench.mps import OUTSIDE, served
from hypercrl.methods import Batch
from hypercrl.methods.hnet import Hnet

MAIN = Path(__file__).with_name("bench_sharing.py")


def steps(arguments: argparse.Namespace, record: Record) -> None:
    """Training steps a second, one way after another, and a table of them.

    Each way begins with the same steps, after which every run's parameters are compared with those
    of the same run in processes by turns. A way that fails, or for which there is no time left, is
    a row that says so.
    """
    torch.set_num_threads(1)
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    wanted: dict[int, str] = {}
    for count in dict.fromkeys([1, *map(int, arguments.processes.split(","))]):
        for way, measure in WAYS.items():
            if count == 1 and way != "turns":
                continue
            if time.monotonic() - record.started > arguments.within:
                record.add(
                    f"{count:2} {way}", "not begun: no time is left", error="no time is left"
                )
                continue
            try:
                row = measure(arguments, count)
            except (RuntimeError, ValueError, UserError, NoAnswer) as error:
                why = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
                record.add(f"{count:2} {way}", f"FAILED {why}", error=why)
                continue
            if way == "turns":
                wanted.update(enumerate(row["digests"]))
            equal = all(wanted.get(seed) == it for seed, it in enumerate(row["digests"]))
            rows[count, way] = {**row, "equal": equal}
            each = row["steps_per_second"]
            said = f"{each:8.0f} each {count * each:9.0f} in all{'' if equal else '  NOT EQUAL'}"
            record.add(f"{count:2} {way}", said, **row, equal=equal)
    table = "\n".join(tabulated(rows))
    print(f"\n{table}")
    write_atomically(record.path.with_suffix(".md"), f"{table}\n".encode())


def tabulated(rows: dict[tuple[int, str], dict[str, Any]]) -> Iterator[str]:
    """Steps a second of all runs together, and as a multiple of one run alone."""
    yield f"| runs | {' | '.join(WAYS)} |"
    yield "|---" * (len(WAYS) + 1) + "|"
    alone = rows[1, "turns"]["steps_per_second"] if (1, "turns") in rows else float("nan")
    for count in dict.fromkeys(count for count, _ in rows):
        cells = []
        for way in WAYS:
            row = rows.get((count, way))
            total = count * row["steps_per_second"] if row else 0.0
            odd = "" if row is None or row["equal"] else ", NOT EQUAL"
            cells.append(f"{total:.0f} ({total / alone:.2f} ×{odd})" if row else "–")
        yield f"| {count} | {' | '.join(cells)} |"


@dataclass(frozen=True)
class Run:
    """A run's training step, ready to be called, what it trains, and its batch."""

    step: Callable[..., tuple[Tensor, ...]]
    hnet: Hnet
    batch: tuple[Tensor, ...]

    @classmethod
    def new(cls, seed: int, arguments: argparse.Namespace) -> Run:
        device = torch.device(arguments.device)
        hnet, batch = make_hnet(arguments.old_tasks, device), make_batch(device)

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            return tuple(hnet.training_step(Batch(*tensors)).values())

        return cls(step, hnet, (batch.obs + 0.01 * seed, batch.action, batch.next_obs))

    @classmethod
    def begun(cls, seed: int, arguments: argparse.Namespace) -> Run:
        """As one graph on CUDA, after the steps that are compared."""
        run = cls.new(seed, arguments)
        step = CapturedFunction(run.step) if arguments.device == "cuda" else run.step
        for _ in range(arguments.compared):
            step(*run.batch)
        return cls(step, run.hnet, run.batch)

    def __call__(self) -> object:
        return self.step(*self.batch)


def digest(hnet: Hnet) -> str:
    theta = hnet.hypernetwork.theta.detach().cpu().numpy()
    return hashlib.sha256(theta.tobytes()).hexdigest()[:16]


def timed_steps(
    call: Callable[[], Any], seconds: float, stream: torch.cuda.Stream | None = None
) -> tuple[int, float]:
    """Calls in about so many seconds, the device waited for after every fifty."""
    begun, count, cuda = time.perf_counter(), 0, torch.cuda.is_available()
    with nullcontext() if stream is None else torch.cuda.stream(stream):
        while time.perf_counter() - begun < seconds:
            for _ in range(50 if cuda else 1):
                call()
                count += 1
            if cuda:
                torch.cuda.current_stream().synchronize()
    return count, time.perf_counter() - begun


def step_process(arguments: argparse.Namespace) -> None:
    """A run's process: prepares, waits for a line, trains, and says how far it came."""
    torch.set_num_threads(1)
    run = Run.begun(arguments.seeds, arguments)
    print(digest(run.hnet), flush=True)
    sys.stdin.readline()
    count, seconds = timed_steps(run, arguments.seconds)
    print(json.dumps(count / seconds, allow_nan=False), flush=True)


def by_turns(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    return in_processes(arguments, count, dict(OUTSIDE))


def by_mps(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    cuda = arguments.device == "cuda"
    gpus = [gpu.name for gpu in visible_gpus(os.environ)[:1]] if cuda else []
    with served(gpus, count, "true", lambda _: None) as service:
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        return in_processes(arguments, count, {**service.environment, **devices})


def in_processes(
    arguments: argparse.Namespace, count: int, environment: dict[str, str]
) -> dict[str, Any]:
    """Raises: ValueError: a process ended early."""
    words = [sys.executable, str(MAIN), "_steps", "--device", arguments.device]
    for name in ("old-tasks", "seconds", "compared"):
        words += [f"--{name}", str(getattr(arguments, name.replace("-", "_")))]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [*words, "--seeds", str(seed)],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        for seed in range(count)
    ]
    try:
        outputs = [process.stdout for process in started if process.stdout is not None]
        digests = [output.readline().strip() for output in outputs]
        if not all(digests):
            raise ValueError(f"{digests.count('')} of {count} processes ended before they began")
        with watched(1) as use:
            for process in started:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            rates = [float(output.readline()) for output in outputs]
    finally:
        for process in started:
            process.communicate()  # which ends one that still waits for its line
    return row(rates, digests, use)


def in_streams(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """Captured one after another, then replayed in threads."""
    runs = [Run.begun(seed, arguments) for seed in range(count)]
    digests = [digest(run.hnet) for run in runs]
    rates = [0.0] * count

    def train(index: int) -> None:
        stream = torch.cuda.Stream() if arguments.device == "cuda" else None
        steps, seconds = timed_steps(runs[index], arguments.seconds, stream)
        rates[index] = steps / seconds

    threads = [threading.Thread(target=train, args=(index,)) for index in range(count)]
    with watched(1) as use:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return row(rates, digests, use)


def in_batch(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """One call takes a step of every run."""
    runs = [Run.new(seed, arguments) for seed in range(count)]
    call, done = (
        one_graph(runs) if arguments.device == "cuda" else (lambda: [run() for run in runs], 0)
    )
    for _ in range(arguments.compared - done):
        call()
    digests = [digest(run.hnet) for run in runs]
    with watched(1) as use:
        steps, seconds = timed_steps(call, arguments.seconds)
    return row([steps / seconds] * count, digests, use)


def one_graph(runs: list[Run]) -> tuple[Callable[[], Any], int]:
    """A graph with a branch for each run, and the steps that its warming up took of each."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for run in runs:
            for _ in range(CapturedFunction.EAGER_CALLS):
                run()
    torch.cuda.synchronize()
    graph, streams = torch.cuda.CUDAGraph(), [torch.cuda.Stream() for _ in runs]
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        for run, stream in zip(runs, streams, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                run()
        for stream in streams:
            main.wait_stream(stream)
    return graph.replay, CapturedFunction.EAGER_CALLS


WAYS: dict[str, Callable[[argparse.Namespace, int], dict[str, Any]]] = {
    "turns": by_turns,
    "MPS": by_mps,
    "streams": in_streams,
    "batch": in_batch,
}


def row(rates: list[float], digests: list[str], use: Use) -> dict[str, Any]:
    mean = sum(rates) / len(rates)
    return {"steps_per_second": mean, "rates": rates, "digests": digests, "use": vars(use)}
