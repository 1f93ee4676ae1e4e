"""One memory for five hidden tasks, one after another: what it is worth, and what it forgets.

    python scripts/hidden_sequence.py --seconds 300 --out OUT [--only 'frame first/*/0']
    python scripts/hidden_sequence.py --table docs/results/hidden/hidden_sequence.jsonl

A cell is an order of the tasks of `five_hidden`, what becomes of the memory after the first task
(`VARIANTS`) and a seed. OUT/hidden_sequence.jsonl has a line a cell: success and error over ten
steps of every task right after its own training, also of runs that were cut short, and of those
that ended after all tasks. The table holds means over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from evidence_grid import check_patterns, fits
from evidence_page import table as markdown
from evidence_records import read_lines
from hard_tasks import SAVING, came_to
from hidden_tasks import COMMON, HIDDEN, that_matter
from timed_cells import options, run_for, run_of

from hypercrl.base.files import write_atomically
from hypercrl.base.strict_json import to_json
from hypercrl.report.formats import fixed, mean

TASKS, SEEDS = 5, 2
SHORTER = (
    *("protocol.num_tasks=5", "protocol.eval_tasks=0", "protocol.heldout_episodes=20"),
    *("protocol.random_steps=7200", "protocol.planned_steps=480", "protocol.replay_capacity=7800"),
    *("protocol.first_updates=2000", "protocol.update_every=240", "protocol.updates=200"),
)
"""Than on one task, `HIDDEN["frame_hidden"]`: 120 random episodes a task."""
USUAL = {
    "told": (),
    "none": ("memory=none",),
    "free": ("memory=gru", "context.protect=none"),
    "frozen": ("memory=gru", "context.protect=freeze"),
    "distilled": ("memory=gru", "context.protect=distil"),
}
STRENGTHS = {
    f"distilled at {strength}": (*USUAL["distilled"], f"context.distil={strength}")
    for strength in (1, 100)
}
VARIANTS = USUAL | STRENGTHS
ORDERS = {"frame first": "[1,2,3,4,5]", "densities first": "[5,1,2,3,4]"}
"""What the first task has a memory find out: all about a frame, or next to nothing."""


@dataclass(frozen=True)
class SequenceCell:
    """One run.

    Attributes:
        order: one of `ORDERS`; variant: one of `VARIANTS`.
    """

    order: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.order}/{self.variant}/{self.seed}"

    def words(self) -> list[str]:
        """The settings of `hypercrl train`; of one that is given twice, the latter counts."""
        env = "env=five_hidden_told" if self.variant == "told" else "env=five_hidden"
        order, own = f"protocol.order={ORDERS[self.order]}", VARIANTS[self.variant]
        shared = (*COMMON, *HIDDEN["frame_hidden"].words, *SHORTER, order)
        words = that_matter((*shared, *own), self.variant not in ("told", "none"))
        return [env, *words, f"seed={self.seed}"]


def cells(only: str = "*") -> Iterator[SequenceCell]:
    """Those that fit a pattern of `only`, the most wanted first."""
    memories = ("free", "frozen", "distilled")
    stages = (
        ((0,), ORDERS, memories),
        ((0,), ("frame first",), ("told",)),
        ((1,), ORDERS, memories),
        (range(SEEDS), ORDERS, VARIANTS),
    )
    every = (
        SequenceCell(order, variant, seed)
        for seeds, orders, variants in stages
        for seed in seeds
        for order in orders
        for variant in variants
    )
    return (cell for cell in dict.fromkeys(every) if fits(cell.name, only))


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what there is time for; what came of it."""
    check_patterns(arguments.only, (cell.name for cell in cells()))
    wanted = list(cells(arguments.only))
    others = [*([f"device={arguments.device}"] if arguments.device else []), *arguments.words]
    grid = [run_of(arguments.work, cell.name, (*cell.words(), *others)) for cell in wanted]
    run_for(grid, arguments.seconds - SAVING, arguments.device, arguments.workers)
    found = [(cell, record(cell, run.folder)) for cell, run in zip(wanted, grid, strict=True)]
    records = [{**one, "commit": arguments.commit} for _, one in found if one["tasks"]]
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = "".join(to_json(one) + "\n" for one in records)
    write_atomically(arguments.out / "hidden_sequence.jsonl", lines.encode())
    return records


def record(cell: SequenceCell, folder: Path) -> dict[str, Any]:
    """Settings of a cell, and of each task what it came to, errors over what all see."""
    came = came_to(folder)
    frame = HIDDEN["frame_hidden"]
    more = frame.told if cell.variant == "told" else 0
    scale = sqrt((frame.seen + more) / frame.seen)
    kept: dict[str, Any] = {"cell": cell.name, "words": cell.words(), "ended": came["ended"]}
    for key in ("tasks", "end"):
        kept[key] = [
            {
                "success": one["success"],
                "error": float(f"{scale * one['prediction_error']:.4g}"),
            }
            for one in came[key]
        ]
    return kept


HEAD = (
    *("first", "memory", "runs", "success", "at the end", "error, mm", "at the end"),
    *(f"{number}." for number in range(1, TASKS + 1)),
)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown; of every task success right after its training → at the end.

    Means over tasks and runs. What was cut short counts as far as it came, in the single tasks
    alone.
    """
    of: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in records:
        order, variant, _ = one["cell"].split("/")
        of.setdefault((order, variant), []).append(one)
    order = [(o, v) for o in ORDERS for v in VARIANTS if (o, v) in of]
    return markdown(HEAD, [row(*names, of[names]) for names in order])


def row(order: str, variant: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of one order and variant."""
    ended = [one for one in runs if one["ended"]]

    def over_all(key: str, what: str, scale: float, decimals: int) -> str:
        values = [scale * each[what] for one in ended for each in one[key]]
        return fixed(mean(values), decimals)

    def of_task(key: str, task: int) -> str:
        return fixed(mean([one[key][task]["success"] for one in runs if len(one[key]) > task]))

    return [
        order.removesuffix(" first"),
        variant,
        f"{len(ended)} of {len(runs)}" if len(ended) < len(runs) else str(len(runs)),
        over_all("tasks", "success", 1, 2),
        over_all("end", "success", 1, 2),
        over_all("tasks", "error", 1e3, 1),
        over_all("end", "error", 1e3, 1),
        *(f"{of_task('tasks', task)} → {of_task('end', task)}" for task in range(TASKS)),
    ]


def main() -> None:
    parser = options(__doc__ or "", "hidden_sequence", 300.0, "frame first/*,*/frozen/0")
    parser.add_argument("--table", type=Path, help="show what is kept in this file, run nothing")
    arguments = parser.parse_intermixed_args()
    if not (arguments.table or arguments.out):
        parser.error("give --out, or --table")
    print(table(read_lines(arguments.table) if arguments.table else run(arguments)))


if __name__ == "__main__":
    main()
