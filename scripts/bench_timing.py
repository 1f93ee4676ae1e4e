"""Times and rows of the benchmark scripts: a failing variant is a row, not the end."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.strict_json import write_json
from hypercrl.training.result import git_revision, machine

# Their versions are written beside every measurement.
PACKAGES = ("torch", "triton", "torchrl", "tensordict", "pytorch-icem", "mbrl", "stable-worldmodel")


@dataclass(frozen=True)
class Times:
    """Microseconds: median, and the distance from the 10th to the 90th percentile."""

    median: float
    spread: float

    @classmethod
    def of(cls, samples: list[float]) -> Times:
        ordered = sorted(samples)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[-1 - tenth] - ordered[tenth])

    def __str__(self) -> str:
        return f"{self.median:9.1f} ±{self.spread / 2:5.1f} µs"


class Clock:
    """Times a function of no arguments on one device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def eager(self, function: Callable[[], Any], repeats: int = 20, wait: bool = True) -> Times:
        """Wall time of one call, waited for; without `wait` until it returns: the host's share."""
        for _ in range(3):
            function()
        samples = []
        for _ in range(repeats):
            self._wait()
            started = time.perf_counter()
            function()
            if wait:
                self._wait()
            samples.append(1e6 * (time.perf_counter() - started))
        return Times.of(samples)

    def graph(self, function: Callable[[], Any], calls: int = 10, repeats: int = 30) -> Times:
        """Device time of one call among `calls` in one CUDA graph, by events."""
        if not self.cuda:
            return self.eager(function, repeats=5)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        return Times.of([t / calls for t in self.events(graph.replay, repeats)])

    def events(self, function: Callable[[], Any], repeats: int) -> list[float]:
        """Microseconds between events around each call, once a graph has been captured."""
        for _ in range(CapturedFunction.EAGER_CALLS + 1):
            function()
        samples = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            torch.cuda.synchronize()
            samples.append(1e3 * begin.elapsed_time(end))
        return samples

    def interleaved(
        self, functions: Mapping[str, Callable[[], Any]], repeats: int = 20
    ) -> dict[str, Times]:
        """Wall time of each function, called in turn: what slows the machine slows them alike.

        The order is drawn anew for every round: what runs before a function costs it up to a third.
        """
        samples: dict[str, list[float]] = {name: [] for name in functions}
        order, turns = list(functions.items()), random.Random(0)
        for repeat in range(-CapturedFunction.EAGER_CALLS - 1, repeats):
            turns.shuffle(order)
            for name, function in order:
                self._wait()
                started = time.perf_counter()
                function()
                self._wait()
                if repeat >= 0:
                    samples[name].append(1e6 * (time.perf_counter() - started))
        return {name: Times.of(values) for name, values in samples.items()}

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


class Report:
    """Lines as they come, rows for the file, and the short table for the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.started = time.perf_counter()

    def attempt(self, work: str, part: str, variant: str, run: Callable[[], dict]) -> dict:
        """Run one measurement; its failure is a row too."""
        row: dict[str, Any] = {"workload": work, "part": part, "variant": variant}
        try:
            row |= run()
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
        self.rows.append(row)
        print(f"{time.perf_counter() - self.started:5.0f}s {self._line(row)}", flush=True)
        return row

    def leave_out(self, work: str, part: str, variant: str, why: str) -> None:
        """What cannot be measured here, in a line and a row."""
        self.rows.append({"workload": work, "part": part, "variant": variant, "error": why})
        seconds = time.perf_counter() - self.started
        print(f"{seconds:5.0f}s {work:13}{variant} is left out: {why}", flush=True)

    @staticmethod
    def _line(row: dict[str, Any]) -> str:
        head = f"{row['workload']:13}{row['part']:9}{row['variant']:44}"
        if "error" in row:
            return head + "FAILED " + row["error"]
        if "median_us" not in row:
            return head + f"{row['share']:.3g}"
        times = Times(row["median_us"], row["spread_us"])
        return head + str(times) + (f"  error {row['relative']:.1e}" if "relative" in row else "")

    def best(self, work: str, part: str, variant: str | None = None) -> dict[str, Any] | None:
        """The fastest row of a part, or of one variant of it."""
        good = [
            row
            for row in self.rows
            if (row["workload"], row.get("part")) == (work, part)
            and variant in (None, row["variant"])
            and "median_us" in row
        ]
        return min(good, key=lambda r: r["median_us"], default=None)

    def write(self, path: Path, device: torch.device) -> None:
        """All rows as JSON, with the machine, the versions and the commit they are of."""
        versions = {}
        for name in PACKAGES:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
        about = {
            "machine": machine(device),
            "versions": {"python": platform.python_version(), **versions},
            "git": git_revision(),
        }
        write_json(path, {**about, "rows": self.rows})


def timed(times: Times, **more: float) -> dict[str, float]:
    return {"median_us": times.median, "spread_us": times.spread, **more}
