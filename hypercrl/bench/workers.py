"""Who runs the cells: processes of this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hypercrl.base.cores import cores
from hypercrl.base.gpu_faults import GPU_FAULT
from hypercrl.bench.cell import Cell
from hypercrl.bench.mps import Service

PR_SET_PDEATHSIG = 1
GRACE = 10.0
"""Seconds that cells have to save and end."""


class Workers(Protocol):
    """Runs a number of cells at a time, each in a process that can die alone.

    A cell whose GPU let it down is run `alone`: with a GPU to itself, another one if there is any.
    """

    def room(self, cell: Cell, alone: bool = False) -> bool:
        """Whether a cell can be started now."""
        ...

    def start(self, cell: Cell, words: Sequence[str], alone: bool = False) -> None:
        """Run `hypercrl WORDS` for a cell there is room for; its output goes to the cell's log."""
        ...

    def finished(self) -> list[tuple[Cell, int]]:
        """Cells that ended since the last call, with exit codes; negative: killed by a signal.

        One that shared its context on a GPU may have `mps.SHARED_FAULT`, once.
        """
        ...

    def close(self) -> None:
        """End whatever still runs."""
        ...


@dataclass(frozen=True)
class Attempt:
    """A process that runs a cell, and the index of the GPU that it was given."""

    cell: Cell
    process: subprocess.Popen[bytes]
    gpu: int
    alone: bool


class LocalWorkers:
    """Processes of this machine, with its cores and GPUs shared among them.

    A process sees one GPU, that on which the fewest run. One on which cells ran out of memory, or
    which failed them, counts as if each of these still ran there, so that it soon gets no more.
    Processes save and end with the one that started them (Linux).

    Args:
        slots: most processes at a time.
        gpus: entries of CUDA_VISIBLE_DEVICES to hand out; none leaves the variable as it is, and
            what the processes see is taken for one GPU.
        service: of those that share a GPU.
    """

    def __init__(
        self, slots: int, gpus: Sequence[str] = (), service: Service | None = None
    ) -> None:
        self.slots = slots
        self.gpus = list(gpus)
        self.service = service or Service()
        self.threads = max(1, cores() // slots)
        self._running: list[Attempt] = []
        self._faults: Counter[int] = Counter()
        self._failed_on: dict[str, int] = {}

    def room(self, cell: Cell, alone: bool = False) -> bool:
        return len(self._running) < self.slots and bool(self._possible(cell, alone))

    def _possible(self, cell: Cell, alone: bool) -> list[int]:
        """The GPUs that may take a cell now."""
        gpus = range(len(self.gpus) or 1)
        if not alone:
            return [gpu for gpu in gpus if not any(a.alone for a in self._on(gpu))]
        others = [gpu for gpu in gpus if gpu != self._failed_on.get(cell.name)]
        return [gpu for gpu in others or gpus if not self._on(gpu)]

    def _on(self, gpu: int) -> list[Attempt]:
        return [attempt for attempt in self._running if attempt.gpu == gpu]

    def start(self, cell: Cell, words: Sequence[str], alone: bool = False) -> None:
        gpus = self._possible(cell, alone)
        gpu = min(gpus, key=lambda gpu: len(self._on(gpu)) + self._faults[gpu])
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ}
        environment |= self.service.environment_of(cell.name, alone)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[gpu]
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
        self._running.append(Attempt(cell, process, gpu, alone))

    def finished(self) -> list[tuple[Cell, int]]:
        ended = []
        for attempt in list(self._running):
            code = attempt.process.poll()
            if code is not None:
                code = self.service.code(attempt.cell.name, code)
                ended.append((attempt.cell, code))
                self._running.remove(attempt)
                if code == GPU_FAULT:
                    self._faults[attempt.gpu] += 1
                    self._failed_on[attempt.cell.name] = attempt.gpu
        return ended

    def close(self) -> None:
        processes = [attempt.process for attempt in self._running]
        for process in processes:
            process.terminate()  # a run saves before it ends
        deadline = time.monotonic() + GRACE
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
