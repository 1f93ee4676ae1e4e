"""hypercrl bench: a grid of runs, each its own process, and one report over all of them."""

import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import continued_with
from hypercrl.bench import (
    RECALL,
    TRAINING,
    Grid,
    LocalWorkers,
    Status,
    Suite,
    Workers,
    run_grid,
)
from hypercrl.bench.cell import Progress
from hypercrl.bench.workers import cores
from hypercrl.config.schema import in_groups
from hypercrl.report import write_report
from hypercrl.report.recall import write_recall
from hypercrl.runs.run_folder import RunFolder

USAGE = """usage: hypercrl bench out=FOLDER SETTING=VALUE[,VALUE ...] ...

Runs every combination of the given values of `hypercrl train`'s settings, each
in a process of its own, then reports on all of them. What is there already is
skipped: the same command again goes on where it was killed.

  method=hnet,single      several values make an axis; method=all is every one
  seed=range(5)           as in Hydra's multirun

What they mean: `hypercrl train --help`. With suite=recall the cells are memory
encoders instead, which learn to recall pairs: settings are those of `hypercrl
recall --help`; if not given, memory=all memory.width=16,32,64.

bench's own settings
  suite=train             what the cells do: train or recall
  out=FOLDER              where the runs and the report go; required
  workers=N               cells at a time; by default the number of cores, on
                          Ray what has room
  retries=2               further attempts of a cell that crashed
  cluster=local           where cells run: local or ray
  address=HOST:PORT       of the Ray cluster; by default the one on this
                          machine, else a new one
  cpus=1                  what a cell takes of a Ray node
  gpus=0                  what a cell takes of a Ray node

examples
  hypercrl bench method=hnet,ewc,single seed=0,1,2 preset=quick out=runs/grid
  hypercrl bench suite=recall memory=gla,mom,transformer out=runs/recall"""

RECALL_USUAL = {"memory": "all", "memory.width": "16,32,64", "seed": "0"}

OWN = ("suite", "out", "workers", "retries", "cluster", "address", "cpus", "gpus")


def run(words: Sequence[str]) -> None:
    """Run the grid that `words` describe, then report.

    Raises:
        UserError: a mistake in the words, before anything runs; or cells that failed, at the end.
    """
    if not words or any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    own, settings = _split(words)
    if "out" not in own:
        raise UserError(f"bench needs out=FOLDER for its runs.\n\n{USAGE}")
    retries = _number(own, "retries", 2, least=0, whole=True)
    suite, settings = _suite(own, settings)
    grid = Grid(settings, Path(own["out"]), suite)
    workers = _workers(own, settings)
    console = Console()
    again = f"hypercrl bench {shlex.join(words)}"
    with continued_with(again), closing(workers), grid.claim():
        board = run_grid(grid.cells, workers, int(retries), console)
        troubles = _failed(board)
        try:
            page = _report([p.cell.folder for p in board], grid, console)
        except (OSError, UserError) as error:  # it must not hide what became of the cells
            page = None
            write = f"hypercrl report {shlex.quote(str(grid.out))}"
            troubles.append(f"no report was written: {error}\nOnce that is mended: {write}")
    if page is not None:
        console.print(f"figures and page: {page}", highlight=False, soft_wrap=True)
    if troubles:
        raise UserError("\n".join(troubles))


def _failed(board: Sequence[Progress]) -> list[str]:
    """A message about the cells that were given up, if there are any."""
    failed = [p for p in board if p.status is Status.FAILED]
    if not failed:
        return []
    lines = "\n".join(f"  {p.cell.name}: {p.reason}\n    {p.cell.log}" for p in failed)
    return [f"{len(failed)} of {len(board)} cells failed:\n{lines}"]


def _split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """bench's own settings, and those of the runs."""
    own: dict[str, str] = {}
    settings: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not a setting; settings are KEY=VALUE.")
        if key in OWN:
            own[key] = value
        elif near := get_close_matches(key, OWN, 1, cutoff=0.8):
            raise UserError(f"there is no setting {key!r}. Did you mean {near[0]!r}?")
        else:
            settings.append(word)
    return own, settings


def _suite(own: dict[str, str], settings: list[str]) -> tuple[Suite, list[str]]:
    """The suite, and the settings of its cells in full."""
    name = own.get("suite", TRAINING.command)
    if name == TRAINING.command:
        return TRAINING, settings
    if name != RECALL.command:
        raise UserError(f"suite is one of train, recall, not {name!r}.")
    given = {word.partition("=")[0] for word in settings}
    usual = [f"{key}={value}" for key, value in RECALL_USUAL.items() if key not in given]
    return RECALL, [*usual, *in_groups(RECALL.command, settings)]


def _report(folders: Sequence[Path], grid: Grid, console: Console) -> Path | None:
    """Report on the cells that came far enough; where the figures are, if any did."""
    if grid.suite is RECALL:
        ended = [run.result_path for run in map(RunFolder, folders) if run.ended]
        return write_recall(ended, grid.out / "report", console)
    begun = [folder for folder in folders if RunFolder(folder).metrics_path.exists()]
    return write_report(begun, grid.out / "report", console, each_run=False) if begun else None


def _workers(own: dict[str, str], settings: Sequence[str]) -> Workers:
    cluster = own.get("cluster", "local")
    if cluster == "local":
        for key in ("address", "cpus", "gpus"):
            if key in own:
                raise UserError(f"{key}= is for cluster=ray; locally there is workers=.")
        slots = int(_number(own, "workers", cores(), least=1, whole=True))
        on_gpu = any(word.startswith("device=cuda") for word in settings)
        return LocalWorkers(slots, _visible_gpus() if on_gpu else ())
    if cluster == "ray":
        from hypercrl.bench.ray_workers import RayWorkers

        return RayWorkers(
            own.get("address"),
            _number(own, "cpus", 1, least=0.01),
            _number(own, "gpus", 0, least=0),
            int(_number(own, "workers", 0, least=0, whole=True)) or None,
        )
    raise UserError(f"cluster is one of local, ray, not {cluster!r}.")


def _number(
    own: dict[str, str], key: str, default: float, least: float, *, whole: bool = False
) -> float:
    try:
        value = float(own.get(key, default))
    except ValueError as error:
        raise UserError(f"{key} is a number, not {own[key]!r}.") from error
    if not isfinite(value) or (whole and value != int(value)):
        raise UserError(f"{key} is a {'whole' if whole else 'finite'} number, not {own[key]!r}.")
    if value < least:
        raise UserError(f"{key} must be at least {least:g}, not {value:g}.")
    return value


def _visible_gpus() -> list[str]:
    """The GPUs that this process may hand out, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return named.split(",")
    return [str(i) for i in range(torch.cuda.device_count())]
