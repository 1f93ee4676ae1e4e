"""Hidden numbers: what a memory is worth beside being told, and what its context holds.

    python scripts/hidden_tasks.py --seconds 230 --out OUT [--only 'frame_hidden/*,*/gru/0']
    python scripts/hidden_tasks.py --take OUT/hidden_tasks.jsonl

`--take` keeps what was measured and fills in the tables of docs/results/memories.md.

A cell is a sequence, what its model has (nothing, the hidden number itself, a memory, or a memory
with another setting) and a seed; within a sequence all live through as many steps and are trained
as often. Cells of which docs/results/hidden keeps a result are not run again. Of what ended in time
OUT/hidden_tasks.jsonl has a line each: success, error over ten steps from step 10 on, and a linear
read-out of the hidden number from the context (scripts/hidden_readout.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from evidence_grid import check_patterns, fits
from evidence_page import table
from evidence_records import read_lines
from hidden_readout import FLOOR, STEPS, Episodes, hidden_episodes, read_out
from marked_section import with_section
from omegaconf import OmegaConf
from rich.console import Console
from timed_cells import options, run_for, run_of

from hypercrl.base.cores import cores
from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.strict_json import from_json, to_json
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.report.formats import decimals, fixed, mean, size, spread

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT = DOCS / "results" / "hidden" / "hidden_tasks.jsonl"
PAGE = DOCS / "results" / "memories.md"
BEGIN, END = "<!-- scripts/hidden_tasks.py: {} -->\n", "<!-- end -->\n"
"""Around what is filled in on the page."""

SAVING = 10.0
"""Seconds before the end of running in which what still runs may save."""
READING = 30.0
"""Seconds after that for the read-outs."""
SEEDS = 3
UNUSED_SEED = 1000
READ = 400
"""Episodes to read out of."""

ENCODERS = ("gru", "gated_deltanet", "gla", "sse", "hgrn2")
REFERENCES = ("told", "none")
COMMON = (
    *("preset=quick", "method=hnet", "protocol.num_tasks=1", "logger=[]", "threads=1"),
    *("simulators=1", "protocol.eval_every=1000000", "protocol.checkpoint_every=1000000"),
    *("protocol.final_episodes=20", "protocol.heldout_from=10", "protocol.heldout_episodes=40"),
)


@dataclass(frozen=True)
class Hidden:
    """A sequence whose first task hides a number.

    Attributes:
        words: settings of every cell.
        seen: dimensions of an observation that is not told.
        told: dimensions more of one that is.
        long: burn-in of long windows: with the steps predicted they are an episode, of a cheetah 60
            steps.
        goal: what is asked of the best memory, in words.
    """

    words: tuple[str, ...]
    seen: int
    told: int
    long: int
    goal: str


TRAINED = "context.burn_in=20", "context.stride=10", "context.learning_rate=0.003"
HIDDEN = {
    "frame_hidden": Hidden(
        (
            *("protocol.random_steps=12000", "protocol.planned_steps=960", "protocol.robots=4"),
            *("protocol.replay_capacity=13000", "protocol.first_updates=3000"),
            *("protocol.update_every=240", "protocol.updates=400", *TRAINED),
        ),
        seen=10,
        told=4,
        long=50,
        goal="success ≥ 0.9 of told",
    ),
    "push_hidden": Hidden(
        (
            *("protocol.random_steps=48000", "protocol.planned_steps=960", "protocol.robots=4"),
            *("protocol.replay_capacity=49000", "protocol.first_updates=5000"),
            *("protocol.update_every=480", "protocol.updates=500", *TRAINED),
            "context.windows=64",
        ),
        seen=10,
        told=2,
        long=50,
        goal="error ≤ 1.10 × told, success ≥ 0.98 of told",
    ),
    "door_hidden": Hidden(
        (
            *("protocol.random_steps=2000", "protocol.planned_steps=4000", "protocol.robots=8"),
            *("protocol.replay_capacity=6000", "protocol.first_updates=1500"),
            *("protocol.update_every=400", "protocol.updates=500", *TRAINED),
            "planner={samples: 200, horizon: 15, iterations: 3, elites: 20}",
        ),
        seen=14,
        told=4,
        long=65,
        goal="success ≥ 0.85 of told",
    ),
    "cheetah_hidden": Hidden(
        (
            *("protocol.random_steps=1600", "protocol.planned_steps=9600", "protocol.robots=8"),
            *("protocol.replay_capacity=11200", "protocol.first_updates=1500"),
            *("protocol.update_every=800", "protocol.updates=500", *TRAINED),
            "planner={samples: 60, horizon: 12, iterations: 3, elites: 8}",
        ),
        seen=20,
        told=3,
        long=50,
        goal="success ≥ 0.85 of told",
    ),
}

LONG = "gru: long windows"
THRICE = ("protocol.first_updates=15000", "protocol.updates=1500")
"""Of the updates on pushes."""
EPISODES = ("protocol.random_steps=15000", "protocol.replay_capacity=19000")
"""Of doors: 200 random ones instead of 27."""
PLANS = ("protocol.planned_steps=12000", "protocol.replay_capacity=14000")
"""Of doors: 160 planned episodes instead of 53, and more updates with them."""
CAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "frame_hidden": {
        "told: 50 episodes": ("protocol.random_steps=3000",),
        "gru: into film": ("context.into=film",),
        f"{LONG} and 50 episodes": ("protocol.random_steps=3000",),
        f"{LONG} and rate 0.001": ("context.learning_rate=0.001",),
        f"{LONG} and predictions from the end alone": ("context.stride=60",),
        f"{LONG} and into film": ("context.into=film",),
    },
    "push_hidden": {
        "gru: 3 × the updates": THRICE,
        "gru: 3 × the updates and into film": (*THRICE, "context.into=film"),
        "told: 3 × the updates": THRICE,
        "gru: into film": ("context.into=film",),
    },
    "door_hidden": {
        "told: 160 planned episodes": PLANS,
        "gru: 160 planned episodes": PLANS,
        "gru: 160 planned episodes and into film": (*PLANS, "context.into=film"),
        "told: 200 random episodes": EPISODES,
        "gru: 200 random episodes": EPISODES,
        "gru: bursts": ("exploration.burst_share=0.3",),
    },
    "cheetah_hidden": {},
}
"""Each a setting or two more: what makes the difference?"""


@dataclass(frozen=True)
class HiddenCell:
    """One run.

    Attributes:
        model: "told", "none", an encoder, `LONG`, or one of the sequence's `CAUSES`.
    """

    sequence: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.model}/{self.seed}"

    @property
    def told(self) -> bool:
        return self.model.startswith("told")

    @property
    def remembers(self) -> bool:
        return not self.told and self.model != "none"

    def words(self) -> list[str]:
        """The settings of `hypercrl train`; of one that is given twice, the latter counts."""
        hidden = HIDDEN[self.sequence]
        env = f"{self.sequence}_told" if self.told else self.sequence
        own = [] if self.told else [f"memory={self.model.partition(':')[0]}"]
        if self.model.startswith(LONG):
            own.append(f"context.burn_in={hidden.long}")
        own += CAUSES[self.sequence].get(self.model, ())
        words = that_matter((*COMMON, *hidden.words, *own), self.remembers)
        return [f"env={env}", *words, f"seed={self.seed}"]

    def settings(self, words: Sequence[str]) -> dict[str, str]:
        """What words say; those of records from before may train a memory where there is none."""
        return dict(word.split("=", 1) for word in that_matter(words, self.remembers))


def that_matter(words: Iterable[str], remembers: bool) -> list[str]:
    """Without the training of a memory where there is none, which would be refused."""
    return [word for word in words if remembers or not word.startswith("context.")]


def cells(only: str = "*") -> Iterator[HiddenCell]:
    """Those that fit a pattern of `only`, the most wanted first."""
    longest_first = ("push_hidden", "door_hidden", "cheetah_hidden", "frame_hidden")
    seeds = range(SEEDS)
    causes = {sequence: tuple(own) for sequence, own in CAUSES.items()}
    first = dict.fromkeys(HIDDEN, (*REFERENCES, "gru"))
    stages = (
        (range(1), first),
        (range(1), causes),
        (seeds, first),
        (seeds, dict.fromkeys(HIDDEN, (LONG,))),
        (seeds, causes),
        (seeds, dict.fromkeys(HIDDEN, ENCODERS)),
    )
    every = (
        HiddenCell(sequence, model, seed)
        for numbers, models in stages
        for seed in numbers
        for sequence in longest_first
        for model in models[sequence]
    )
    return (cell for cell in dict.fromkeys(every) if fits(cell.name, only))


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what there is time for; what is kept, and what has ended now."""
    end = time.monotonic() + arguments.seconds
    kept = {one["cell"]: one for one in read(KEPT)}
    check_patterns(arguments.only, (cell.name for cell in cells()))
    wanted = [cell for cell in cells(arguments.only) if cell.name not in kept]
    others = [f"device={arguments.device}"] if arguments.device else []
    others += arguments.words
    grid = [run_of(arguments.work, c.name, (*c.words(), *others)) for c in wanted]
    running = arguments.seconds - SAVING - READING
    run_for(grid, running, arguments.device, arguments.workers)
    ended = [(c, run.folder) for c, run in zip(wanted, grid, strict=True) if run.done]
    print(f"{len(ended)} of {len(grid)} cells have ended, {end - time.monotonic():.0f} s are left")
    write(arguments.out / KEPT.name, [*kept.values(), *(record(*one) for one in ended)])
    found = read_outs(ended, arguments, end)
    records = [{**record(*one), "read_out": found.get(one[0].name)} for one in ended]
    records = [{**one, "commit": arguments.commit} for one in records]
    write(arguments.out / KEPT.name, [*kept.values(), *records])
    return [*kept.values(), *records]


def read_outs(
    ended: Sequence[tuple[HiddenCell, Path]], arguments: argparse.Namespace, end: float
) -> dict[str, dict[str, float] | None]:
    """Of the cells with a memory what is read out of them, as far as there is time."""
    remembering = [(c, folder) for c, folder in ended if c.remembers]
    with ProcessPoolExecutor(cores(), get_context("forkserver")) as pool:
        episodes: dict[str, Episodes] = {}
        for sequence in dict.fromkeys(cell.sequence for cell, _ in remembering):
            words = [*HiddenCell(sequence, "told", UNUSED_SEED).words(), "device=cpu"]
            config = OmegaConf.to_object(composed("train", [*words, *arguments.words]))
            episodes[sequence] = hidden_episodes(pool, cast(TrainConfig, config), arguments.read)
        found = {
            cell.name: pool.submit(read_out, folder, episodes[cell.sequence])
            for cell, folder in remembering
        }
        wait(found.values(), max(end - time.monotonic(), 0.0))
        pool.shutdown(cancel_futures=True)
        done = {name: each for name, each in found.items() if each.done() and not each.cancelled()}
        return {name: each.result() for name, each in done.items()}


def record(cell: HiddenCell, folder: Path) -> dict[str, Any]:
    """What a run that has ended came to.

    The error is over the dimensions that all see: those that are told stand still, and are
    predicted to, but count in the run's own mean.
    """
    result = from_json((folder / "result.json").read_bytes())
    hidden = HIDDEN[cell.sequence]
    more = hidden.told if cell.told else 0
    error = result["prediction_error"][-1][0] * sqrt((hidden.seen + more) / hidden.seen)
    kept = ("updates", "env_steps", "memory_state_bytes", "update_milliseconds", "seconds")
    return {
        "cell": cell.name,
        "words": cell.words(),
        "success": result["success"][-1][0],
        "return": float(f"{result['scores'][-1][0]:.5g}"),
        "error": float(f"{error:.4g}"),
        **{key: result[key] for key in kept},
        "machine": result["machine"],
        "torch": result["versions"]["torch"],
    }


def by_model(records: Sequence[Mapping[str, Any]], sequence: str) -> dict[str, list[Any]]:
    """The runs of a sequence, of models in the order of tables; those not measured have none."""
    models = [*REFERENCES, *ENCODERS, LONG, *CAUSES[sequence]]
    of: dict[str, list[Any]] = {model: [] for model in models}
    for one in records:
        own, model, _ = one["cell"].split("/")
        if own == sequence:
            of[model].append(one)
    return of


HEAD = (
    *("", "seeds", "success", "of told", "return", "error", "× told"),
    *(f"R² after {n}" for n in STEPS),
    *("shuffled", "state"),
)


def row(
    model: str, runs: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Of a model the mean and deviation over the seeds that there are, and against what is told."""
    means = {key: mean([one[key] for one in runs]) for key in ("success", "error")}
    against = {key: mean([one[key] for one in told]) for key in ("success", "error")}
    shares = {
        key: f"{means[key] / against[key]:.2f}" if told and against[key] else "" for key in means
    }
    return [
        model,
        str(len(runs)),
        spread([one["success"] for one in runs]),
        shares["success"],
        _significant([one["return"] for one in runs]),
        _significant([one["error"] for one in runs]),
        shares["error"],
        *(_read(runs, str(steps)) for steps in STEPS),
        _read(runs, FLOOR),
        size(runs[0]["memory_state_bytes"]) if runs[0]["memory_state_bytes"] else "",
    ]


def rows_of(records: Sequence[Mapping[str, Any]], sequence: str) -> list[list[str]]:
    """Of each model that was measured."""
    of = by_model(records, sequence)
    return [row(model, runs, of["told"]) for model, runs in of.items() if runs]


def section(records: Sequence[Mapping[str, Any]], sequence: str) -> str:
    """The table of a sequence, and what of it was not measured."""
    rows = rows_of(records, sequence)
    missing = [model for model, runs in by_model(records, sequence).items() if not runs]
    said = [table(HEAD, rows)] if rows else []
    return "\n".join([*said, *([f"Not measured: {', '.join(missing)}.\n"] if missing else [])])


def _significant(values: Sequence[float]) -> str:
    return spread(values, decimals(values))


def _read(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [one["read_out"][key] for one in runs if key in (one.get("read_out") or {})]
    return fixed(mean(values)) if values else ""


def filled(page: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The page with the table of each sequence between its marks.

    Raises:
        UserError: a mark is missing.
    """
    for sequence in HIDDEN:
        text = f"\n{section(records, sequence)}\n"
        page = with_section(page, BEGIN.format(sequence), END, text)
    return page


def read(file: Path) -> list[dict[str, Any]]:
    return read_lines(file) if file.exists() else []


def write(file: Path, records: Sequence[Mapping[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(to_json(one) + "\n" for one in records).encode())


def take(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Merge records into what is kept, one that was kept before stays; and fill the page.

    Raises:
        UserError: a record of a cell that the grid has not, or now has with other settings.
    """
    kept = {one["cell"]: one for file in (KEPT, *files)[::-1] for one in read(file)}
    grid = {cell.name: cell for cell in cells()}
    for name, one in kept.items():
        cell = grid.get(name)
        if cell is None or cell.settings(one["words"]) != cell.settings(cell.words()):
            raise UserError(f"{name} was measured with other settings than the grid's.")
    order = list(grid)
    records = sorted(kept.values(), key=lambda one: order.index(one["cell"]))
    write(KEPT, records)
    write_atomically(PAGE, filled(PAGE.read_text(encoding="utf-8"), records).encode())
    return records


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """What was measured, a line a sequence and model."""
    say = partial(Console(width=200).print, markup=False, highlight=False)
    for sequence, hidden in HIDDEN.items():
        say(f"{sequence}: {hidden.goal}; seeds, success, of told, return, error, × told, R², floor")
        for values in rows_of(records, sequence):
            say("  " + "  ".join(f"{value:>7}" for value in values))


def main() -> None:
    parser = options(__doc__ or "", "hidden_tasks", 230.0, "push_hidden/*,*/told/0")
    parser.add_argument("--read", type=int, default=READ, help="episodes to read out of")
    parser.add_argument("--take", type=Path, nargs="+", help="keep what these files hold, run none")
    arguments = parser.parse_intermixed_args()
    if not (arguments.take or arguments.out):
        parser.error("give --out, or --take")
    try:
        show(take(arguments.take) if arguments.take else run(arguments))
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
