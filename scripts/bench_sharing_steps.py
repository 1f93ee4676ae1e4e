"""Training steps of several runs on one GPU: by processes, MPS, threads, or in one graph."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_machine import Use, watched
from bench_sharing_grid import Record
from bench_training import make_batch, make_hnet
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.bench.gpus import visible_gpus
from hypercrl.bench.mps import OUTSIDE, served
from hypercrl.methods import Batch
from hypercrl.methods.hnet import Hnet

MAIN = Path(__file__).with_name("bench_sharing.py")
CHECKED_STEPS = 200
"""Steps of each run before any is timed, after which its parameters are compared."""


def steps(arguments: argparse.Namespace, record: Record) -> None:
    """Training steps a second of several runs on one GPU, one way after another."""
    alone = step_processes(arguments, 1, {})["digests"][0]
    for count in map(int, arguments.processes.split(",")):
        rates: dict[str, dict[str, Any]] = {}
        rates["processes"] = step_processes(arguments, count, dict(OUTSIDE))
        gpu = visible_gpus(os.environ)[0].name
        with served([gpu], count, "true", lambda _: None) as service:
            rates["processes, MPS"] = step_processes(
                arguments, count, {**service.environment, "CUDA_VISIBLE_DEVICES": gpu}
            )
        rates["threads, a stream each"] = step_threads(arguments, count)
        rates["branches of one graph"] = step_branches(arguments, count)
        for way, rate in rates.items():
            each = rate["steps_per_second"]
            same = rate["digests"][:1] == [alone]
            said = f"{each:8.0f} each {count * each:9.0f} in all{'' if same else '  NOT EQUAL'}"
            record.add(f"{count:2} {way}", said, **rate, equal=same)


def new_step(
    seed: int, old_tasks: int, device: str = "cuda"
) -> tuple[Callable[..., tuple[Tensor, ...]], Hnet, tuple[Tensor, ...]]:
    """A training step of hnet, what it trains, and the tensors of its batch."""
    hnet, batch = make_hnet(old_tasks, torch.device(device)), make_batch(torch.device(device))

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(hnet.training_step(Batch(*tensors)).values())

    return step, hnet, (batch.obs + 0.01 * seed, batch.action, batch.next_obs)


def digest(hnet: Hnet) -> str:
    theta = hnet.hypernetwork.theta.detach().cpu().numpy()
    return hashlib.sha256(theta.tobytes()).hexdigest()[:16]


def timed_steps(call: Callable[[], Any], seconds: float) -> tuple[int, float]:
    """Calls in about so many seconds, the device waited for after every fifty."""
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(50):
            call()
        torch.cuda.current_stream().synchronize()
        count += 50
    return count, time.perf_counter() - begun


def step_process(arguments: argparse.Namespace) -> None:
    """A run's process: prepares, waits for a line, trains, and says how far it came."""
    torch.set_num_threads(1)
    step, hnet, batch = new_step(arguments.seeds, arguments.old_tasks)
    captured = CapturedFunction(step)
    for _ in range(CHECKED_STEPS):
        captured(*batch)
    print(digest(hnet), flush=True)
    sys.stdin.readline()
    count, seconds = timed_steps(lambda: captured(*batch), arguments.seconds)
    print(json.dumps(count / seconds, allow_nan=False), flush=True)


def step_processes(
    arguments: argparse.Namespace, count: int, environment: dict[str, str]
) -> dict[str, Any]:
    words = [sys.executable, str(MAIN), "_steps", "--old-tasks", str(arguments.old_tasks)]
    words += ["--seconds", str(arguments.seconds), "--seeds"]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [*words, str(seed)],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        for seed in range(count)
    ]
    outputs = [process.stdout for process in started if process.stdout is not None]
    digests = [output.readline().strip() for output in outputs]
    with watched(1) as use:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        rates = [float(output.readline()) for output in outputs]
    for process in started:
        process.wait()
    return row(rates, digests, use)


def step_threads(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """One process; captured one after another, then replayed in threads on streams of their own."""
    prepared = []
    for seed in range(count):
        step, hnet, batch = new_step(seed, arguments.old_tasks)
        captured = CapturedFunction(step)
        for _ in range(CHECKED_STEPS):
            captured(*batch)
        prepared.append((captured, hnet, batch, torch.cuda.Stream()))
    digests = [digest(hnet) for _, hnet, _, _ in prepared]
    rates = [0.0] * count

    def train(index: int) -> None:
        captured, _, batch, stream = prepared[index]
        with torch.cuda.stream(stream):
            steps, seconds = timed_steps(lambda: captured(*batch), arguments.seconds)
        rates[index] = steps / seconds

    threads = [threading.Thread(target=train, args=(index,)) for index in range(count)]
    with watched(1) as use:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return row(rates, digests, use)


def step_branches(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """The steps of all runs in one graph, side by side: about what one batch over seeds would take.

    A batch would have fewer and larger kernels, which this cannot show; it has no launches but one,
    and no lock to share, as this.
    """
    prepared = [new_step(seed, arguments.old_tasks) for seed in range(count)]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for step, _, batch in prepared:
            for _ in range(CapturedFunction.EAGER_CALLS):
                step(*batch)
    torch.cuda.synchronize()
    graph, streams = torch.cuda.CUDAGraph(), [torch.cuda.Stream() for _ in prepared]
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        for (step, _, batch), stream in zip(prepared, streams, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                step(*batch)
        for stream in streams:
            main.wait_stream(stream)
    for _ in range(CHECKED_STEPS - CapturedFunction.EAGER_CALLS):
        graph.replay()
    torch.cuda.synchronize()
    digests = [digest(hnet) for _, hnet, _ in prepared]
    with watched(1) as use:
        steps, seconds = timed_steps(graph.replay, arguments.seconds)
    return row([steps / seconds] * count, digests, use)


def row(rates: list[float], digests: list[str], use: Use) -> dict[str, Any]:
    mean = sum(rates) / len(rates)
    return {"steps_per_second": mean, "rates": rates, "digests": digests, "use": vars(use)}
