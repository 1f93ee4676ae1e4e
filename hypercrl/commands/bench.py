"""hypercrl bench: a grid of runs, each its own process, and one report over all of them."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from difflib import get_close_matches
from functools import partial
from math import inf, isfinite
from pathlib import Path

from rich.console import Console

from hypercrl.base.cores import cores
from hypercrl.base.counted import counted
from hypercrl.base.errors import Unwritable, UserError
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
from hypercrl.bench.gpus import Gpu, NoAnswer, visible_gpus
from hypercrl.bench.mps import WISHES, served
from hypercrl.config.schema import in_groups
from hypercrl.config.words import no_setting
from hypercrl.report import write_report
from hypercrl.report.recall import write_recall
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.footprint import ON_A_GPU, gpu_bytes

USAGE = """usage: hypercrl bench out=FOLDER SETTING=VALUE[,VALUE ...] ...

Runs every combination of the given values of `hypercrl train`'s settings, each
in a process of its own, then reports on all of them, and on what else has ended
in that folder. What is there already is skipped: the same command again goes on
where it was killed.

  method=hnet,single      several values make an axis; method=all is every one
  seed=range(5)           as in Hydra's multirun

What they mean: `hypercrl train --help`. With suite=recall the cells are memory
encoders instead, which learn to recall pairs: settings are those of `hypercrl
recall --help`; if not given, memory=all memory.width=16,32,64.

bench's own settings
  suite=train             what the cells do: train or recall
  out=FOLDER              where the runs and the report go; required
  workers=N               cells at a time; by default as many as there are
                          cores, up to 16 a GPU, on Ray what has room
  mps=auto                cells that share a GPU do so through CUDA MPS: true,
                          false, or auto, where it is to be had
  retries=2               further attempts of a cell that crashed; one whose GPU
                          ran out of memory or failed gets one more in any case
  cluster=local           where cells run: local or ray
  address=HOST:PORT       of the Ray cluster; by default the one on this
                          machine, else a new one
  cpus=1                  what a cell takes of a Ray node
  gpus=0                  what a cell takes of a Ray node

examples
  hypercrl bench method=hnet,ewc,single seed=0,1,2 preset=quick out=runs/grid
  hypercrl bench suite=recall memory=gla,mom,transformer out=runs/recall"""

MOST_A_GPU = 16
"""Cells at a time on a GPU, by default."""

RECALL_USUAL = {"memory": "all", "memory.width": "16,32,64", "seed": "0"}

MOST_WORKERS = 10_000
"""More are a slip of the finger, for which there would not even be memory to count them."""

LEAST_SHARE = 0.0001
"""Of a GPU that Ray gives away."""

OWN = ("suite", "out", "workers", "mps", "retries", "cluster", "address", "cpus", "gpus")


def run(words: Sequence[str]) -> None:
    """Run the grid that `words` describe, then report.

    Raises:
        UserError: a mistake in the words, before anything runs; or cells that failed, at the end.
    """
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    own, settings = _split(words)
    if not own.get("out"):
        raise UserError(f"bench needs out=FOLDER for its runs.\n\n{USAGE}")
    retries = _number(own, "retries", 2, least=0, whole=True)
    suite, settings = _suite(own, settings)
    grid = Grid(settings, Path(own["out"]), suite)
    console = Console(markup=False)
    again = f"hypercrl bench {shlex.join(words)}"
    with (
        continued_with(again),
        _workers(own, grid, console) as workers,
        _claimed(grid, console) as report,
    ):
        board = run_grid(grid.cells, workers, int(retries), console)
        troubles = _failed(board)
        try:
            page = _report([p.cell.folder for p in board], grid, report, console)
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
            bare = [word for word in words if "=" not in word]
            raise UserError(no_setting("bench", word, bare))
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


@contextmanager
def _claimed(grid: Grid, console: Console) -> Iterator[Path | None]:
    """Hold the grid's folder for the block; where its report goes.

    That is nowhere, and nothing is held, where all cells have ended and nothing can be written.
    """
    with ExitStack() as held:
        report: Path | None = grid.out / "report"
        try:
            held.enter_context(grid.claim())
        except Unwritable:
            if not all(cell.done for cell in grid.cells):
                raise
            report = None
            said = f"all cells have ended, and {grid.out} cannot be written to: nothing is written"
            console.print(said, highlight=False, soft_wrap=True)
        yield report


def _report(folders: Sequence[Path], grid: Grid, out: Path | None, console: Console) -> Path | None:
    """Report on the cells that came far enough, and on those that earlier calls brought to their
    end; where the figures are, if there are any."""
    if earlier := grid.earlier():
        names = ", ".join(folder.name for folder in earlier)
        said = f"with {counted(len(earlier), 'cell')} of earlier grids in {grid.out}: {names}"
        console.print(said, highlight=False, soft_wrap=True)
    if grid.suite is RECALL:
        ended = [run.result_path for run in map(RunFolder, [*folders, *earlier]) if run.ended]
        return write_recall(ended, out, console)
    begun = [folder for folder in folders if RunFolder(folder).metrics_path.exists()]
    begun += earlier
    return write_report(begun, out, console, each_run=False) if begun else None


@contextmanager
def _workers(own: dict[str, str], grid: Grid, console: Console) -> Iterator[Workers]:
    """Who runs the cells; at the end of the block all that was begun for them is ended."""
    wish, cluster = own.get("mps", "auto"), own.get("cluster", "local")
    if wish not in WISHES:
        raise UserError(f"mps is one of {', '.join(WISHES)}, not {wish!r}.")
    waiting = sum(not cell.done for cell in grid.cells)
    say = partial(console.print, highlight=False, soft_wrap=True)
    if cluster == "local":
        for key in ("address", "cpus", "gpus"):
            if key in own:
                raise UserError(f"{key}= is for cluster=ray; locally there is workers=.")
        gpus = _gpus(grid)
        slots = int(_number(own, "workers", _room(grid, gpus), 1, MOST_WORKERS, whole=True))
        names = [gpu.name for gpu in gpus]
        with (
            served(names, min(slots, waiting), wish, say) as service,
            closing(LocalWorkers(slots, names, service)) as workers,
        ):
            yield workers
    elif cluster == "ray":
        from hypercrl.bench.ray_workers import RayWorkers

        cpus, share = _number(own, "cpus", 1, least=0.01), _number(own, "gpus", 0, least=0)
        if (share > 1 and share % 1) or 0 < share < LEAST_SHARE:
            raise UserError(
                f"gpus={own['gpus']}: a cell takes a share of one GPU from {LEAST_SHARE:g} to 1 on "
                "Ray, or whole ones; it has no use for more than one."
            )
        most = int(_number(own, "workers", 0, 0, MOST_WORKERS, whole=True)) or None
        with closing(RayWorkers(own.get("address"), cpus, share, most)) as workers:
            names = [gpu.name for gpu in _gpus(grid)] if workers.here and 0 < share < 1 else []
            with served(names, min(workers.slots, waiting), wish, say) as workers.service:
                yield workers
    else:
        raise UserError(f"cluster is one of local, ray, not {cluster!r}.")


def _gpus(grid: Grid) -> list[Gpu]:
    """The GPUs that are dealt to the cells: none where they use the processor, or name one."""
    if not {config.device for config in grid.configs} & {"auto", "cuda"}:
        return []
    try:
        return visible_gpus(os.environ)
    except NoAnswer:
        return []  # a cell that asks for one says what is wrong


def _room(grid: Grid, gpus: Sequence[Gpu]) -> int:
    """How many cells run at a time unless it is said: as cores, and memory of GPUs, allow."""
    if not gpus:
        return cores()
    needed = max(map(gpu_bytes, grid.configs)) if grid.suite is TRAINING else ON_A_GPU
    each = min(MOST_A_GPU, *(max(1, gpu.free // needed) for gpu in gpus))
    return min(cores(), each * len(gpus))


def _number(
    own: dict[str, str],
    key: str,
    default: float,
    least: float,
    most: float = inf,
    *,
    whole: bool = False,
) -> float:
    try:
        value = float(own.get(key, default))
    except ValueError as error:
        raise UserError(f"{key} is a number, not {own[key]!r}.") from error
    if not isfinite(value) or (whole and value != int(value)):
        raise UserError(f"{key} is a {'whole' if whole else 'finite'} number, not {own[key]!r}.")
    if value < least:
        raise UserError(f"{key} must be at least {least:g}, not {value:g}.")
    if value > most:
        raise UserError(f"{key} must be at most {most:g}, not {value:g}.")
    return value
