"""A grid of runs, as many at a time as there are cores, that ends in time."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from evidence import gpu_names, time_limit
from rich.console import Console

from hypercrl.base.cores import cores
from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.bench import Cell, LocalWorkers, compose_cells, run_grid
from hypercrl.bench.mps import served
from hypercrl.runs.run_folder import FAILURE


def options(about: str, name: str, seconds: float, example: str) -> argparse.ArgumentParser:
    """What all such grids take on the command line.

    Args:
        about: the script's docstring.
        name: of the folder in /tmp that runs are in.
        seconds: how long it takes where nothing else is said.
        example: of --only.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("words", nargs="*", help="further settings, of every cell")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="in all, saving and reading included"
    )
    parser.add_argument("--out", type=Path, help="folder of what is to come back")
    parser.add_argument("--only", default="*", help=f"patterns of cells: {example!r}")
    parser.add_argument("--workers", type=int, help="cells at a time; as many as there are cores")
    parser.add_argument("--work", type=Path, default=Path("/tmp") / name, help="of the runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="auto where it is not given")
    parser.add_argument("--commit", help="is kept in every line")
    return parser


def run_of(work: Path, name: str, words: Iterable[str]) -> Cell:
    """The run of a cell, in a folder of `work` that is named after it."""
    return Cell(name, tuple(words), work / re.sub(r"[^\w/.]+", "_", name))


def run_for(grid: Sequence[Cell], seconds: float, device: str | None, workers: int | None) -> None:
    """Run the cells, over all GPUs, in their order; what still runs then is told to save.

    Args:
        grid: what to run, or to go on with.
        seconds: until the workers are told to end; saving takes 20 more at most.
        device: "cpu": no GPU is looked for.
        workers: cells at a time; None: as many as there are cores.

    Raises:
        SystemExit: 2; settings that cannot be, or a folder that another cell's run is in.
    """
    _check(grid)
    claim(grid)
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


def claim(grid: Sequence[Cell]) -> None:
    """A folder is of one cell: another's run in it would be taken for this one's result."""
    for cell in grid:
        note = cell.folder.with_name(f"{cell.folder.name}.settings")
        settings = "\n".join(cell.overrides)
        there = note.read_text(encoding="utf-8") if note.exists() else None
        if there not in (None, settings) or (there is None and cell.folder.exists()):
            print(
                f"{cell.folder} holds a run with other settings; name another --work.",
                file=sys.stderr,
            )
            raise SystemExit(2)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, settings.encode())


def _check(grid: Sequence[Cell]) -> None:
    """End the program where settings of a cell cannot be, before time is spent on the others."""
    for cell in {cell.but_seed: cell for cell in grid}.values():
        try:
            compose_cells([cell])
        except UserError as error:
            print(f"{cell.name}: {error}", file=sys.stderr)
            raise SystemExit(2) from error
