"""What a machine was doing while a block ran: its GPUs, processors and memory, twice a second."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PERIOD = 0.5
"""Seconds between two looks."""


@dataclass
class Use:
    """Means over the block, and the most that was held at a time.

    Attributes:
        gpus: percent of the time in which a kernel ran, GPU by GPU.
        cpu: percent of all processors.
        gpu_bytes: most of any one GPU. host_bytes: most of the machine's memory beyond what was
            taken before.
    """

    gpus: list[float] = field(default_factory=list)
    cpu: float = 0.0
    gpu_bytes: int = 0
    host_bytes: int = 0

    def __str__(self) -> str:
        gpus = " ".join(f"{share:.0f}" for share in self.gpus)
        return (
            f"GPU {gpus} %, {self.gpu_bytes / 2**30:.1f} GiB; "
            f"CPU {self.cpu:.0f} %, {self.host_bytes / 2**30:.1f} GiB"
        )


@contextmanager
def watched(count: int) -> Iterator[Use]:
    """Fill in, when the block ends, what the first `count` GPUs and the machine did in it."""
    use, ended = Use(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(use, count, ended), daemon=True)
    watcher.start()
    try:
        yield use
    finally:
        ended.set()
        watcher.join()


def _watch(use: Use, count: int, ended: threading.Event) -> None:
    nvml, psutil = _module("pynvml"), _module("psutil")
    gpus, busy, cpu = _handles(nvml, count), [0.0] * count, 0.0
    before = psutil.virtual_memory().used if psutil else 0
    looks = 0
    while not ended.wait(PERIOD):
        looks += 1
        for index, gpu in enumerate(gpus):
            busy[index] += nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            use.gpu_bytes = max(use.gpu_bytes, nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        if psutil:
            cpu += psutil.cpu_percent()
            use.host_bytes = max(use.host_bytes, psutil.virtual_memory().used - before)
    use.gpus = [total / max(looks, 1) for total in busy]
    use.cpu = cpu / max(looks, 1)


def _handles(nvml: Any, count: int) -> list[Any]:
    if nvml is None:
        return []
    nvml.nvmlInit()
    return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]


def _module(name: str) -> Any:
    """Without them figures are left out; the machines that are lent have both."""
    with suppress(ImportError):
        return importlib.import_module(name)
    return None


def processes(name: str) -> list[int]:
    """Numbers of those whose program's file has this name."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program = line.read_bytes().split(b"\0")[0].decode(errors="replace")
            if Path(program).name == name:
                found.append(int(line.parent.name))
    return found
