"""A grid of runs, as many at a time as there are cores, that ends in time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from evidence import gpu_names, time_limit
from rich.console import Console

from hypercrl.base.cores import cores
from hypercrl.bench import Cell, LocalWorkers, run_grid
from hypercrl.bench.mps import served
from hypercrl.runs.run_folder import FAILURE


def run_for(grid: Sequence[Cell], seconds: float, device: str | None, workers: int | None) -> None:
    """Run the cells, over all GPUs, in their order; what still runs then is told to save.

    Args:
        grid: what to run, or to go on with.
        seconds: until the workers are told to end; saving takes 20 more at most.
        device: "cpu": no GPU is looked for.
        workers: cells at a time; None: as many as there are cores.
    """
    names = [] if device == "cpu" else gpu_names(None)
    slots = workers or cores()
    console = Console(width=200)
    with (
        time_limit(seconds),
        served(names, min(slots, len(grid)), "auto", console.print) as service,
        closing(LocalWorkers(slots, names, service)) as running,
    ):
        run_grid(grid, running, retries=0, console=Console(quiet=True))
    for cell in grid:
        failed, refused = cell.folder / FAILURE, cell.last_words("hypercrl: ")
        if failed.exists() or refused:
            why = failed.read_text(encoding="utf-8") if failed.exists() else refused
            console.print(f"{cell.name}: {why}", markup=False)
