"""Who runs the cells: a Ray cluster."""

import contextlib
import importlib
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hypercrl.base.errors import UserError, first_line
from hypercrl.bench.cell import Cell
from hypercrl.bench.mps import Service

CRASHED = -9
"""Exit code of a cell whose worker process is gone."""

HOW_TO_JOIN = (
    "Once Ray was started without a cluster it keeps a token in ~/.ray/auth_token, and what "
    "`ray start` begins from then on asks for it: set RAY_AUTH_MODE=token here; on another "
    "machine copy that file there too."
)
"""Ray logs why it was turned away, and does not raise it."""


class RayWorkers:
    """Cells as Ray tasks, wherever the cluster has room; each in a worker process of its own.

    The folder of the grid has to be the same file system on all nodes, and so the current one, in
    which a cell runs and from which it imports. Ray's own retries are off:
    the scheduler counts attempts, and each goes on from the last checkpoint. A cell that runs alone
    asks Ray for a whole GPU, whichever that is.

    Args:
        address: of a cluster; None: the one that `ray start` began on this machine or
            RAY_ADDRESS names, else a new one of this machine alone.
        cpus, gpus: what one cell takes of a node; fractions of a GPU share it.
        limit: most cells at a time; None: as many as the cluster has room for.

    Attributes:
        slots: most cells at a time.
        here: whether the cluster is this machine alone.
        service: of cells that share a GPU.

    Raises:
        UserError: Ray is not installed, there is no cluster at `address`, or no node of it has room
            for one cell.
    """

    def __init__(
        self, address: str | None, cpus: float, gpus: float, limit: int | None = None
    ) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise UserError(
                'cluster=ray needs Ray; install it with: pip install "hypercrl[ray]"'
            ) from error
        self.ray = ray
        where = address or "this machine"
        try:
            _check_reachable(address)
        except OSError as error:
            raise UserError(
                f"There is no Ray cluster at {where} ({error}). Start one with: ray start --head"
            ) from error
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise UserError(
                f"The Ray cluster at {where} cannot be joined ({reason}). {HOW_TO_JOIN} "
                f"It has to run this machine's version of Ray, {ray.__version__}."
            ) from error
        need = {"CPU": cpus, "GPU": gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not (room := places(nodes, need)):
            ray.shutdown()
            raise UserError(
                f"no node of the Ray cluster has room for a cell of {cpus:g} CPUs and {gpus:g} "
                "GPUs; lower cpus= or gpus=."
            )
        self.slots = min(room, limit or room)
        self.here = len(nodes) == 1 and not (address or "").startswith("ray://")
        self.service = Service()
        # A cluster that knows of no GPUs has none to give.
        self._whole_gpu = max(gpus, 1) if any(node.get("GPU", 0) >= 1 for node in nodes) else gpus
        self._run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=1)(_run_cell)
        self._running: dict[Any, Cell] = {}

    def room(self, cell: Cell, alone: bool = False) -> bool:  # noqa: ARG002 - Ray keeps it waiting
        return len(self._running) < self.slots

    def start(self, cell: Cell, words: Sequence[str], alone: bool = False) -> None:
        cell.log.parent.mkdir(parents=True, exist_ok=True)
        run = self._run.options(num_gpus=self._whole_gpu) if alone else self._run
        environment = dict(self.service.environment_of(cell.name, alone))
        self._running[run.remote(list(words), str(cell.log), os.getcwd(), environment)] = cell

    def finished(self) -> list[tuple[Cell, int]]:
        if not self._running:
            return []
        ready, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        ended = [(self._running.pop(task), task) for task in ready]
        codes = [(cell, self._exit_code(cell, task)) for cell, task in ended]
        return [(cell, self.service.code(cell.name, code)) for cell, code in codes]

    def _exit_code(self, cell: Cell, task: Any) -> int:
        """A cell's own, or what stands for a worker that did not get so far; then the log says why.

        A worker that cannot import this package has written no log.
        """
        try:
            return self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            code, reason = 1, error
        except self.ray.exceptions.RayError as error:
            code, reason = CRASHED, error
        with open(cell.log, "a", encoding="utf-8") as log:
            log.write(f"{reason}\n")
        return code

    def close(self) -> None:
        for task in self._running:
            self.ray.cancel(task, force=True)
        self._running.clear()
        self.ray.shutdown()


def places(nodes: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """How many cells there is room for at a time.

    Node by node: what is left of one and of another is room for none. Ray counts in ten
    thousandths, and to it ten tenths are a whole.

    Args:
        nodes: what each has of every resource.
        need: what a cell takes of it, more than nothing of one at least.
    """
    taken = {kind: amount for kind, amount in need.items() if amount}
    shares = (min(node.get(k, 0) / amount for k, amount in taken.items()) for node in nodes)
    return sum(int(share + 1e-6) for share in shares)


def _check_reachable(address: str | None) -> None:
    """Ray itself ends the process, after minutes, where nobody answers at host:port."""
    if address is None:
        return
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _run_cell(words: list[str], log: str, folder: str, environment: dict[str, str]) -> int:
    """In the worker itself rather than in a child of it: who kills the worker kills the run."""
    os.environ.update(environment)
    with (
        open(log, "a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        os.chdir(folder)
        sys.argv[1:] = words
        try:
            runpy.run_module("hypercrl", run_name="__main__")
        except SystemExit as exit_:
            return exit_.code if isinstance(exit_.code, int) else 1
    return 0
