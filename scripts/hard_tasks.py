"""What helps where one network of its own does not solve a task? Settings against each other.

    python scripts/hard_tasks.py --seconds 280 --out OUT [--only 'slide/*,push/*/0'] [--device cpu]
    python scripts/hard_tasks.py --table docs/results/hard/hard_tasks.jsonl

A cell is a sequence, a variant of the settings and a seed. As many run at a time as there are
cores, over all GPUs, and end in time; seed 0 of everything comes first. OUT/hard_tasks.jsonl has a
line a cell: of every task what its evaluation came to right after its own training, also of runs
that were cut short, and of those that ended what it came to after all tasks. The table holds means
over seeds, and of all cells the worst and the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from evidence_grid import STANDARD, check_patterns, fits
from evidence_records import read_lines
from rich.console import Console
from rich.table import Table
from timed_cells import options, run_for, run_of

from hypercrl.base.files import write_atomically
from hypercrl.base.strict_json import to_json

SAVING = 22.0
"""Seconds before the end at which whatever still runs is told to save."""
COMMON = ("logger=[]", "threads=1", "protocol.eval_tasks=0")
MEMBERS = ("method.members=5",)
PENALTY = (*MEMBERS, "planner.risk=penalty")
KNOTS = ("planner.knots=5",)
HNET = ("method=hnet",)
BURSTS = ("exploration.burst_share=0.3",)
DISAGREEMENT = (*BURSTS, "exploration.kind=disagreement")
CEM = ("planner.samples=300", "planner.horizon=20", "planner.elites=30")
POLICY = ("planner=policy", "planner.samples=100", "planner.elites=10")
VALUE = ("value.kind=td",)
FAR_VALUE = (*VALUE, "value.steps=20", "value.discount=0.995")
"""Behind the end of plans, which a hopper leaps into."""
UPDATES = ("protocol.updates=2000",)
"""A session, as in the paper's own budget."""
LIKELY = ("dynamics.probabilistic=true",)
"""Trained by likelihood, for which errors of a blow hardly count."""
WEIGHTED = (*LIKELY, "dynamics.variance_weight=0.5")
"""Errors count by the deviation that is predicted: of what rests for more, of a blow for less."""
STEADY = ("exploration.planned_std=0.1",)
GENTLE = ("exploration.random_std=0.35",)
"""Less noise beside planned actions, in place of 0.25; smaller random ones, in place of 0.8."""
SHORTER = (
    *("protocol.robots=32", "protocol.random_steps=2016", "protocol.planned_steps=28000"),
    *("protocol.eval_every=28000", "protocol.final_episodes=4"),
)
"""Of a hopper that is planned for over more steps, in as much time."""
TWENTY = ("protocol.final_episodes=20",)
SMOOTH = (*KNOTS, *PENALTY)
FARTHER = {
    "5 knots, 5 members, penalty, horizon 20": (*SMOOTH, "planner.horizon=20"),
    "5 knots, 5 members, penalty, horizon 20, 2000 updates": (
        *(*SMOOTH, "planner.horizon=20", *UPDATES),
    ),
    "5 knots, 5 members, penalty, horizon 30": (*SMOOTH, "planner.horizon=30"),
    "5 knots, 5 members, penalty, horizon 30, 2000 updates": (
        *(*SMOOTH, "planner.horizon=30", *UPDATES),
    ),
    "5 knots, 5 members, penalty, horizon 20, weighted": (
        *(*SMOOTH, "planner.horizon=20", *WEIGHTED),
    ),
    "5 knots, 5 members, penalty, horizon 30, weighted": (
        *(*SMOOTH, "planner.horizon=30", *WEIGHTED),
    ),
    "5 knots, 5 members, penalty, horizon 30, 2000 updates, weighted": (
        *(*SMOOTH, "planner.horizon=30", *UPDATES, *WEIGHTED),
    ),
    "5 knots, 5 members, penalty, horizon 30, weighted, bursts": (
        *(*SMOOTH, "planner.horizon=30", *WEIGHTED, *BURSTS),
    ),
    "5 knots, 5 members, penalty, horizon 30, 2000 updates, weighted, bursts": (
        *(*SMOOTH, "planner.horizon=30", *UPDATES, *WEIGHTED, *BURSTS),
    ),
    "5 knots, 5 members, penalty, horizon 40, weighted": (
        *(*SMOOTH, "planner.horizon=40", *WEIGHTED),
    ),
    "5 knots, 5 members, penalty, horizon 30, probabilistic": (
        *(*SMOOTH, "planner.horizon=30", *LIKELY),
    ),
    "5 knots, 5 members, penalty, horizon 30, 2000 updates, probabilistic": (
        *(*SMOOTH, "planner.horizon=30", *UPDATES, *LIKELY),
    ),
    "5 knots, 5 members, penalty, horizon 40": (*SMOOTH, "planner.horizon=40"),
}
"""Where friction is least plans of 20 steps throw too far, with true dynamics too; of 30 not."""
CHEETAHS = (
    *("env=cheetah_joints", "preset=quick", "protocol.robots=8"),
    *("protocol.eval_every=14000", "protocol.checkpoint_every=5000", *TWENTY),
)
JOINTS = (*CHEETAHS, "method=single")
LONGER = (*MEMBERS, "protocol.updates=600")
EXPLORING = {
    "5 members": MEMBERS,
    "5 members, bursts": (*MEMBERS, *BURSTS),
    "5 members, disagreement": (*MEMBERS, *DISAGREEMENT),
}
"""At equal steps: no bursts, those of random actions, and plans for what members disagree about."""


@dataclass(frozen=True)
class Hard:
    """A sequence and what is tried on it.

    Attributes:
        words: settings of every cell.
        variants: settings beside these, by name.
        seeds: how many.
    """

    words: tuple[str, ...]
    variants: Mapping[str, tuple[str, ...]]
    seeds: int


HARD = {
    "hopper": Hard(
        (
            *("env=walkers", "method=single", "preset=quick", "protocol.num_tasks=1"),
            *("protocol.robots=16", "protocol.random_steps=2000", "protocol.planned_steps=48000"),
            *("protocol.update_every=400", "protocol.updates=500", "protocol.batch_size=256"),
            *("protocol.replay_capacity=50000", "protocol.eval_every=12000"),
            *("protocol.eval_episodes=4", "protocol.checkpoint_every=16000"),
            *("protocol.prediction_horizon=5", "exploration.planned_std=0.1"),
        ),
        {
            "policy": (*POLICY, "planner.horizon=60", "planner.iterations=2"),
            "policy, 5 members, penalty": (
                *(*POLICY, "planner.horizon=60", "planner.iterations=2", *PENALTY),
            ),
            "policy, 5 members, penalty, value": (
                *(*POLICY, "planner.horizon=60", "planner.iterations=2", *PENALTY, *VALUE),
            ),
            "policy, 60 steps, 5 members, penalty, far value": (
                *(*POLICY, "planner.horizon=60", "planner.iterations=2", *PENALTY, *FAR_VALUE),
            ),
            "policy, 40 steps, 5 members, penalty, far value": (
                *(*POLICY, "planner.horizon=40", "planner.iterations=2", *PENALTY, *FAR_VALUE),
            ),
            "cem, 5 members": (
                *("planner.samples=300", "planner.horizon=40", "planner.elites=30", *MEMBERS),
            ),
            "cem, 20 steps, 5 members, penalty": (*CEM, *PENALTY),
            "cem, 20 steps, 5 members, penalty, value": (*CEM, *PENALTY, *VALUE),
            # With true dynamics too it runs, within 60 steps, into a fall that comes after them.
            "policy, 100 steps, 5 members, penalty, 30,000": (
                *(*POLICY, "planner.horizon=100", "planner.iterations=2", *PENALTY, *SHORTER),
            ),
            "policy, 150 steps, 5 members, penalty, 30,000": (
                *(*POLICY, "planner.horizon=150", "planner.iterations=2", *PENALTY, *SHORTER),
            ),
        },
        seeds=3,
    ),
    "cheetah_joints": Hard(
        (*JOINTS, "protocol.num_tasks=3"),
        {
            "as it is": (),
            "500 samples": ("planner.samples=500", "planner.elites=20"),
            "5 members": MEMBERS,
            "5 members, penalty, 200 samples, horizon 20": (
                *("planner.samples=200", "planner.elites=20", "planner.horizon=20", *PENALTY),
            ),
            "5 members, 600 updates": LONGER,
            "5 members, 600 updates, value": (*LONGER, *VALUE),
            "5 members, 600 updates, far value": (*LONGER, *FAR_VALUE),
        },
        seeds=3,
    ),
    "more_joints": Hard(
        (*JOINTS, "protocol.order=[4,5]"),
        {"5 members": MEMBERS, "5 members, 600 updates": LONGER},
        seeds=3,
    ),
    # What a network of its own learns, does the hypernetwork remember after the whole sequence?
    "all_joints": Hard(
        (*CHEETAHS, "protocol.num_tasks=5"),
        {
            "single, 5 members, 600 updates, value": ("method=single", *LONGER, *VALUE),
            "hnet, 5 members, 600 updates": (*HNET, *LONGER),
            "hnet, 5 members, 600 updates, value": (*HNET, *LONGER, *VALUE),
        },
        seeds=3,
    ),
    "all_slides": Hard(
        ("env=slide", *STANDARD, *TWENTY),
        {
            "hnet, 5 knots, 5 members, penalty, horizon 30": (*HNET, *SMOOTH, "planner.horizon=30"),
            "hnet, 5 knots, 5 members, penalty, horizon 30, weighted": (
                *(*HNET, *SMOOTH, "planner.horizon=30", *WEIGHTED),
            ),
            "hnet, 5 knots, 5 members, penalty, horizon 30, 2000 updates, weighted": (
                *(*HNET, *SMOOTH, "planner.horizon=30", *UPDATES, *WEIGHTED),
            ),
        },
        seeds=3,
    ),
    "all_doors": Hard(
        ("env=door5", *STANDARD, *TWENTY),
        {
            "hnet, 5 knots, 5 members, penalty, gentle, steady, 2000 updates": (
                *(*HNET, *SMOOTH, *GENTLE, *STEADY, *UPDATES),
            ),
        },
        seeds=3,
    ),
    "door5": Hard(
        ("env=door5", "method=single", *STANDARD, "protocol.final_episodes=20"),
        {
            "as it is": (),
            "5 members": MEMBERS,
            "bursts": BURSTS,
            "5 members, bursts": (*MEMBERS, *BURSTS),
        },
        seeds=2,
    ),
    # The bar, and the levers to be lifted: now and then one is not learned. What makes that rarer?
    "door": Hard(
        ("env=door", *STANDARD, "protocol.order=[1,2,5]"),
        {
            "as it is": HNET,
            "single": ("method=single",),
            "no regulariser": (*HNET, "method.beta=0"),
            "4000 random steps": (
                *(*HNET, "protocol.random_steps=4000", "protocol.replay_capacity=8000"),
            ),
            "bursts": (*HNET, *BURSTS),
            "planned_std 0.5": (*HNET, "exploration.planned_std=0.5"),
            "6000 planned steps": (
                *(*HNET, "protocol.planned_steps=6000", "protocol.replay_capacity=8000"),
            ),
            "5 members": (*HNET, *MEMBERS),
        },
        seeds=5,
    ),
    "knobs": Hard(
        ("env=door5", "method=single", *STANDARD, "protocol.order=[2,4]", *TWENTY),
        {
            **EXPLORING,
            "5 members, steady": (*MEMBERS, *STEADY),
            "5 knots, 5 members": (*KNOTS, *MEMBERS),
            "5 knots, 5 members, penalty, steady, 2000 updates": (*(*SMOOTH, *STEADY, *UPDATES),),
            "5 knots, 5 members, steady, 8000 planned steps": (
                *(*KNOTS, *MEMBERS, *STEADY, "protocol.planned_steps=8000"),
                "protocol.replay_capacity=10000",
            ),
            # Large random actions tear the fingers off a round knob: smaller ones hold it in five
            # times as many steps.
            "gentle": GENTLE,
            "5 members, gentle": (*MEMBERS, *GENTLE),
            "5 members, gentle, value": (*MEMBERS, *GENTLE, *VALUE),
            "5 members, gentle, far value": (*MEMBERS, *GENTLE, *FAR_VALUE),
            "5 knots, 5 members, penalty, gentle, steady, 2000 updates": (
                *(*SMOOTH, *GENTLE, *STEADY, *UPDATES),
            ),
            "5 knots, 5 members, penalty, gentle, steady, 2000 updates, bursts": (
                *(*SMOOTH, *GENTLE, *STEADY, *UPDATES, *BURSTS),
            ),
        },
        seeds=3,
    ),
    "far_slides": Hard(
        ("env=slide", "method=single", *STANDARD, "protocol.order=[3,5]", *TWENTY),
        {
            **EXPLORING,
            **FARTHER,
            "5 knots, 5 members, penalty, value": (*SMOOTH, *VALUE),
            "5 knots, 5 members, penalty, far value": (*SMOOTH, *FAR_VALUE),
        },
        seeds=3,
    ),
    "near_slides": Hard(
        ("env=slide", "method=single", *STANDARD, "protocol.order=[1,2,4]", *TWENTY),
        FARTHER,
        seeds=3,
    ),
    "slide": Hard(
        ("env=slide", "method=single", *STANDARD, "protocol.final_episodes=20"),
        {
            "as it is": (),
            "5 knots": KNOTS,
            "5 members": MEMBERS,
            "5 knots, 5 members": (*KNOTS, *MEMBERS),
            "5 knots, 5 members, penalty": SMOOTH,
            "5 knots, 1000 samples, horizon 30": (
                *(*KNOTS, "planner.samples=1000", "planner.horizon=30"),
            ),
        },
        seeds=2,
    ),
    "push": Hard(
        ("env=push", "method=hnet", "preset=quick", "protocol.final_episodes=40"),
        {
            "as it is": (),
            "bursts": BURSTS,
            "planned_std 0.5": ("exploration.planned_std=0.5",),
            "500 updates": ("protocol.updates=500",),
            "bursts, 500 updates": (*BURSTS, "protocol.updates=500"),
            "bursts, 1800 planned steps": (
                *(*BURSTS, "protocol.planned_steps=1800", "protocol.replay_capacity=2400"),
            ),
            **EXPLORING,
        },
        seeds=5,
    ),
}


@dataclass(frozen=True)
class HardCell:
    sequence: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.variant}/{self.seed}"

    def words(self, *others: str) -> list[str]:
        """The settings of `hypercrl train`."""
        hard = HARD[self.sequence]
        return [*hard.words, *COMMON, *hard.variants[self.variant], f"seed={self.seed}", *others]


def cells(only: str = "*") -> Iterator[HardCell]:
    """Those that fit a pattern of `only`: seed 0 of everything first, then the shortest runs."""
    every = [
        HardCell(sequence, variant, seed)
        for sequence, hard in HARD.items()
        for variant in hard.variants
        for seed in range(hard.seeds)
    ]
    every.sort(key=lambda cell: (cell.seed > 0 and cell.sequence != "push", cell.seed))
    for cell in every:
        if fits(cell.name, only):
            yield cell


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what there is time for, and read what all of it came to."""
    check_patterns(arguments.only, (cell.name for cell in cells()))
    wanted = list(cells(arguments.only))
    device = [f"device={arguments.device}"] if arguments.device else []
    grid = [
        run_of(arguments.work, cell.name, cell.words(*device, *arguments.words)) for cell in wanted
    ]
    run_for(grid, arguments.seconds - SAVING, arguments.device, arguments.workers)
    records = [record(cell, run.folder) for cell, run in zip(wanted, grid, strict=True)]
    lines = "".join(to_json({**one, "commit": arguments.commit}) + "\n" for one in records)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "hard_tasks.jsonl", lines.encode())
    return records


def record(cell: HardCell, folder: Path) -> dict[str, Any]:
    """Settings of a cell, and what came of it."""
    return {"cell": cell.name, "words": cell.words(), **came_to(folder)}


def came_to(folder: Path) -> dict[str, Any]:
    """What came of a run, also of one that was cut short.

    In "tasks" the evaluation of each task at the end of its own training, where it came to that; in
    "end" those of all tasks after the last one. In "solved" of each task begun its planned
    episodes in training, in order, 1 for a success and 0 for none; in "late" the mean return of the
    last sixteen of these.
    """
    file = folder / "metrics.jsonl"
    metrics = read_lines(file) if file.exists() else []
    evals = [one for one in metrics if one["kind"] == "eval"]
    trained = {one["env_steps"] for one in metrics if one["kind"] == "continual_success"}
    at_ends = [one for one in evals if one["env_steps"] in trained]
    own = {one["task"]: one for one in at_ends if one["on"] == one["task"]}
    last = max((one["env_steps"] for one in evals), default=0)
    ended = (folder / "result.json").exists()
    solved: dict[str, str] = {}
    returns: dict[str, list[float]] = {}
    for one in metrics:
        if one["kind"] == "episode" and not one["random"]:
            task = str(one["task"])
            solved[task] = solved.get(task, "") + str(int(one["success"]))
            returns.setdefault(task, []).append(one["return"])
    return {
        "ended": ended,
        "tasks": [_short(own[task]) for task in sorted(own)],
        "end": [_short(one) for one in evals if ended and one["env_steps"] == last],
        "solved": solved,
        "late": {task: float(f"{mean(own[-16:]):.4g}") for task, own in returns.items()},
    }


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in values.items()
        if key not in ("kind", "task")
    }


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """One row a variant: of each task the mean over the seeds that came so far."""
    rows = Table("sequence", "variant", "seeds", "success", "return", "error", "pace, m/s")
    for title in ("worst, mean", "at the end", "while learned: mean, least"):
        rows.add_column(title)
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for one in records:
        by_variant.setdefault(one["cell"].rpartition("/")[0], []).append(one)
    for name, runs in by_variant.items():
        sequence, _, variant = name.partition("/")
        most = max(len(one["tasks"]) for one in runs)
        tasks = [[r["tasks"][t] for r in runs if len(r["tasks"]) > t] for t in range(most)]

        def means(key: str, form: str, tasks: list[list[Any]] = tasks) -> str:
            values = ([one[key] for one in task if one.get(key) is not None] for task in tasks)
            return " ".join(format(mean(own), form) if own else "–" for own in values)

        ends = [one for run in runs for one in run["end"]]
        seeds = f"{sum(bool(one['ended']) for one in runs)}/{len(runs)}"
        forms = {"success": ".2f", "return": ".0f", "prediction_error": ".2g", "pace": ".2f"}
        shown = (means(key, form) for key, form in forms.items())
        overall = (_overall(each) for each in ([one for task in tasks for one in task], ends))
        rows.add_row(sequence, variant, seeds, *shown, *overall, _while_learned(runs))
    return rows


def _overall(evaluations: Sequence[Mapping[str, Any]]) -> str:
    values = [one["success"] for one in evaluations]
    return f"{min(values):.2f}, {mean(values):.3f}" if values else "–"


def _while_learned(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of each task learned to its end the share of its planned episodes in training that were
    solved: by task the mean over runs, then the least of any run."""
    shares: dict[int, list[float]] = {}
    for one in runs:
        for task in range(1, len(one["tasks"]) + 1):
            if of_task := one.get("solved", {}).get(str(task)):
                shares.setdefault(task, []).append(mean(map(int, of_task)))
    means = " ".join(f"{mean(shares[task]):.2f}" for task in sorted(shares))
    return f"{means}, {min(min(own) for own in shares.values()):.2f}" if shares else "–"


def main() -> None:
    parser = options(__doc__ or "", "hard_tasks", 280.0, "slide/*,push/bursts/0")
    parser.add_argument("--table", type=Path, help="show what is kept in this file, run nothing")
    arguments = parser.parse_intermixed_args()
    if not (arguments.table or arguments.out):
        parser.error("give --out, or --table")
    records = read_lines(arguments.table) if arguments.table else run(arguments)
    Console(width=200).print(table(records))


if __name__ == "__main__":
    main()
