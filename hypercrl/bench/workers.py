"""Who runs the cells: processes of this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from hypercrl.bench.cell import Cell

PR_SET_PDEATHSIG = 1
GRACE = 10.0
"""Seconds that cells have to save and end."""
NOTHING: Mapping[str, str] = MappingProxyType({})

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time that a container is given in a period, and that period."""


class Workers(Protocol):
    """Runs a number of cells at a time, each in a process that can die alone."""

    @property
    def free(self) -> int:
        """How many more cells can be started now."""
        ...

    def start(self, cell: Cell, words: Sequence[str]) -> None:
        """Run `hypercrl WORDS` for a cell; its output goes to the cell's log."""
        ...

    def finished(self) -> list[tuple[Cell, int]]:
        """Cells that ended since the last call, with exit codes; negative: killed by a signal."""
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...


class LocalWorkers:
    """Processes of this machine, with its cores and GPUs shared among them.

    GPUs go round: the process of slot i sees the GPU i mod n alone. Processes save and end with the
    one that started them (Linux).

    Args:
        slots: most processes at a time.
        gpus: entries of CUDA_VISIBLE_DEVICES to hand out; none leaves the variable as it is.
        environment: what the processes find in theirs beside this one's.
    """

    def __init__(
        self, slots: int, gpus: Sequence[str] = (), environment: Mapping[str, str] = NOTHING
    ) -> None:
        self.gpus = list(gpus)
        self.environment = environment
        self.threads = max(1, cores() // slots)
        self._free_slots = list(range(slots))
        self._running: dict[int, tuple[Cell, subprocess.Popen[bytes]]] = {}

    @property
    def free(self) -> int:
        return len(self._free_slots)

    def start(self, cell: Cell, words: Sequence[str]) -> None:
        slot = self._free_slots[0]
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ, **self.environment}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        cell.log.parent.mkdir(parents=True, exist_ok=True)
        with open(cell.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "hypercrl", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._running[slot] = (cell, process)
        self._free_slots.remove(slot)

    def finished(self) -> list[tuple[Cell, int]]:
        ended = []
        for slot, (cell, process) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                ended.append((cell, code))
                del self._running[slot]
                self._free_slots.append(slot)
        return ended

    def close(self) -> None:
        for _, process in self._running.values():
            process.terminate()  # a run saves before it ends
        deadline = time.monotonic() + GRACE
        for _, process in self._running.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no such file: no quota; "max": none is set
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(allowed, -(-quota // period)))
    return allowed


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
