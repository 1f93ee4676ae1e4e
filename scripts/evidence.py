"""The evidence: who remembers, at what cost. A grid that is run in pieces, and what came of it.

    python scripts/evidence.py run --seconds 540 --out OUT --commit "$(git rev-parse --short HEAD)"
    python scripts/evidence.py run --seconds 540 --out OUT --only 'door/*,push/hnet/*' --gpus 1
    python scripts/evidence.py take OUT/evidence.jsonl
    python scripts/evidence.py table
    python scripts/evidence.py status

`run` takes the next cells (scripts/evidence_grid.py) of which docs/results/evidence keeps no
result, as many at a time as there are cores, and ends in time; what has ended is in
OUT/evidence.jsonl at once. Runs that were cut short lie in the folder --work, and go on from there
while it is there; with --unfinished cells that take longer than the call are begun as well.
`take` merges such a file into docs/results/evidence, `table` draws docs/results/evidence.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench_machine import watched
from evidence_grid import EvidenceCell, cells, check_patterns
from evidence_records import FOLDER, kept, names, packed, read_lines, take
from make_demo import make_demo
from rich.console import Console

from hypercrl.base.cores import cores
from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import to_json
from hypercrl.bench import Cell, LocalWorkers, run_grid
from hypercrl.bench.gpus import NoAnswer, visible_gpus
from hypercrl.bench.mps import Service, served
from hypercrl.runs.run_folder import FAILURE

SAVING = 20.0
"""Seconds before the end at which whatever still runs is told to save."""
STARTING = 20.0
"""Seconds that a cell takes beside what it counts: imports, compiling."""
MARGIN = 1.15
"""A cell is begun where so many times its usual seconds are left."""


class TimeIsUp(Exception):
    pass


class Usual:
    """How long cells take, from those that have ended, kept or in this piece.

    Args:
        records: what is kept.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self.longest: dict[str, float] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: Mapping[str, Any]) -> None:
        sequence, method, _ = record["cell"].split("/")
        for key in (sequence, f"{sequence}/{method}"):
            self.longest[key] = max(self.longest.get(key, 0.0), record["seconds"])

    def seconds(self, cell: EvidenceCell) -> float:
        """The longest of its method there, else of its sequence, else the grid's guess."""
        by_method = self.longest.get(f"{cell.sequence}/{cell.method}")
        return by_method or self.longest.get(cell.sequence) or cell.column.seconds


class TimedWorkers(LocalWorkers):
    """Workers that begin no cell that would not end, and hand over each that has ended.

    Args:
        slots: cores; a cell takes as many as it has threads.
        gpus, service: as of LocalWorkers.
        cells: by name.
        usual: how long each takes.
        deadline: of time.monotonic().
        keep: called with every cell that has ended well.
        unfinished: begin cells that would not end, too.
    """

    def __init__(
        self,
        slots: int,
        gpus: Sequence[str],
        service: Service,
        cells: Mapping[str, EvidenceCell],
        usual: Usual,
        deadline: float,
        keep: Callable[[Cell], None],
        unfinished: bool = False,
    ) -> None:
        super().__init__(slots, gpus, service)
        self.unfinished = unfinished
        self.cells, self.usual, self.deadline, self.keep = cells, usual, deadline, keep
        self.refused = False

    def room(self, cell: Cell, alone: bool = False) -> bool:
        taken = sum(self._threads(attempt.cell) for attempt in self._running)
        if self._running and taken + self._threads(cell) > self.slots:
            return False
        usual = self.usual.seconds(self.cells[cell.name])
        goes_on = self.unfinished or begun(cell)
        needed = 2 * STARTING if goes_on else STARTING + MARGIN * usual
        if time.monotonic() + needed > self.deadline:
            self.refused = True
            return False
        return super().room(cell, alone)

    def _threads(self, cell: Cell) -> int:
        return self.cells[cell.name].column.threads

    def finished(self) -> list[tuple[Cell, int]]:
        if not self._running and self.refused:
            raise TimeIsUp  # nothing that waits would end
        ended = super().finished()
        for cell, _ in ended:
            if cell.done:
                self.keep(cell)
        return ended


def begun(cell: Cell) -> bool:
    """Whether it goes on from a checkpoint."""
    return (cell.folder / "config.yaml").exists()


def run(arguments: argparse.Namespace) -> None:
    """The next cells, until the time is up."""
    deadline = time.monotonic() + arguments.seconds - SAVING
    check_patterns(arguments.only, (cell.name for cell in cells()))
    there = kept(arguments.kept)
    missing = [c for c in cells(arguments.only) if c.name not in there]
    todo = [c for c in missing if find_spec(c.column.needs) is not None]
    if len(todo) < len(missing):
        left_out = {c.sequence: c.column.needs for c in missing if c not in todo}
        print("left out:", ", ".join(f"{name}, no {needs}" for name, needs in left_out.items()))
    usual = Usual(there.values())
    by_name = {c.name: c for c in todo}
    grid = [grid_cell(c, arguments) for c in todo]
    grid.sort(key=lambda cell: not begun(cell))
    names = [] if arguments.device == "cpu" else gpu_names(arguments.gpus)
    slots = arguments.workers or cores()
    print(f"{len(there)} cells are kept, {len(todo)} to do; {len(names)} GPUs, {slots} cores")
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep = Keeper(arguments, by_name, usual)
    for cell in grid:
        if cell.done:  # by an earlier call on this machine
            keep(cell)
    say = Console(width=200).print
    with (
        watched(max(1, len(names))) as use,
        time_limit(deadline - time.monotonic()),
        served(names, min(slots, len(todo)), "auto", say) as service,
        closing(
            TimedWorkers(
                slots, names, service, by_name, usual, deadline, keep, arguments.unfinished
            )
        ) as workers,
    ):
        run_grid(grid, workers, retries=1, console=Console(width=200))
    for cell in grid:
        keep.failed(cell)
    print(f"{keep.count} cells in {arguments.out / keep.file.name}; {use}")


def grid_cell(cell: EvidenceCell, arguments: argparse.Namespace) -> Cell:
    """As `hypercrl bench` runs it."""
    words = cell.words()
    if arguments.device and not any(word.startswith("device=") for word in words):
        words.append(f"device={arguments.device}")
    return Cell(cell.name, tuple(words), arguments.work / cell.name)


class Keeper:
    """Packs each cell that has ended into one file, and makes room on the disk."""

    def __init__(
        self, arguments: argparse.Namespace, wanted: Mapping[str, EvidenceCell], usual: Usual
    ) -> None:
        self.file = arguments.out / "evidence.jsonl"
        self.out, self.commit, self.agents = arguments.out, arguments.commit, arguments.agents
        self.wanted, self.usual, self.count = wanted, usual, 0

    def __call__(self, cell: Cell) -> None:
        record = packed(self.wanted[cell.name], cell.folder, self.commit)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(to_json(record) + "\n")
        self.usual.learn(record)
        self.count += 1
        if cell.name in self.agents.split(","):
            self._agent(cell)
        shutil.rmtree(cell.folder / "checkpoints", ignore_errors=True)

    def _agent(self, cell: Cell) -> None:
        """The trained agent alone, as one file."""
        name = cell.name.replace("/", "_")
        folder = cell.folder.with_name(f"{cell.folder.name}_agent")
        with suppress(UserError):  # a second call finds the checkpoints gone
            make_demo(cell.folder, folder)
            with tarfile.open(self.out / f"{name}.tar.gz", "w:gz") as tar:
                tar.add(folder, name)

    def failed(self, cell: Cell) -> None:
        """Of one that was given up why, and the end of what it said."""
        with suppress(OSError):
            if begun(cell):
                reason = (cell.folder / FAILURE).read_text(encoding="utf-8").strip()
            else:
                reason = cell.last_words("hypercrl: ") or "never begun"
            said = cell.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            with open(self.out / "failed.txt", "a", encoding="utf-8") as file:
                file.write(f"{cell.name}: {reason}\n{said}\n\n")


def gpu_names(most: int | None) -> list[str]:
    """The first so many GPUs of this machine."""
    try:
        return [gpu.name for gpu in visible_gpus(os.environ)][:most]
    except NoAnswer as error:
        print(f"no GPU: {error}")
        return []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends the block after so many seconds, in order: workers that are told to end save first."""

    def end(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    except TimeIsUp:
        print("the time is up; what runs is saved", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def take_files(arguments: argparse.Namespace) -> None:
    for file in arguments.files:
        records = read_lines(file)
        if arguments.commit:
            records = [{**record, "git": arguments.commit} for record in records]
        for name, said in take(records, arguments.kept).items():
            print(f"{name}: {said}")


def status(arguments: argparse.Namespace) -> None:
    """How many cells of each sequence are there; the others see whether settings are the grid's."""
    there = names(arguments.kept)
    every = list(cells())
    for sequence in dict.fromkeys(c.sequence for c in every):
        mine = [c for c in every if c.sequence == sequence]
        print(f"{sequence:16}{sum(c.name in there for c in mine):4} of {len(mine)}")


def table(arguments: argparse.Namespace) -> None:
    from evidence_page import write_page

    print(write_page(kept(arguments.kept)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kept", type=Path, default=FOLDER, help="folder of kept results")
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--seconds", type=float, default=540.0, help="in all, saving included")
    runs.add_argument("--out", type=Path, required=True, help="folder of what is to come back")
    runs.add_argument("--only", default="*", help="patterns of cells: 'push/*,door/hnet/0'")
    runs.add_argument("--gpus", type=int, help="how many of this machine; all")
    runs.add_argument("--workers", type=int, help="cores to fill; all")
    runs.add_argument("--work", type=Path, default=Path("/tmp/evidence"), help="of the runs")
    runs.add_argument("--device", choices=("cpu", "cuda"), help="auto where it is not given")
    runs.add_argument(
        "--unfinished",
        action="store_true",
        help="begin what would not end; the next call on this machine goes on with it",
    )
    runs.add_argument("--agents", default="", help="cells whose trained agents come back too")
    runs.add_argument("--commit", help="where the repository's is not to be had")
    runs.set_defaults(call=run)
    takes = commands.add_parser("take")
    takes.add_argument("files", type=Path, nargs="+")
    takes.add_argument("--commit", help="in place of the one in the files")
    takes.set_defaults(call=take_files)
    commands.add_parser("table").set_defaults(call=table)
    commands.add_parser("status").set_defaults(call=status)
    arguments = parser.parse_args()
    try:
        arguments.call(arguments)
    except UserError as error:
        parser.exit(2, f"evidence: {error}\n")


if __name__ == "__main__":
    main()
