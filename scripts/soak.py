"""A run of a hundred thousand control steps: does the process grow, slow down or lose files?

Twenty tasks on a CPU, of five kinds that come round four times, with a hypernetwork and a memory;
searches, rounds of training and evaluations are as small as they can be, so that what is counted
are steps. What the process holds is noted at the end of every task and compared with what it held
when all kinds had been met once; the time of a step is compared between the first and the last task
of each kind. The same command again goes on where it was ended, a finished run is summed up again.

    python scripts/soak.py --out docs/results/soak --run runs/soak        # minutes on a quiet core
    python scripts/soak.py --out OUT --run FOLDER --steps 5000
"""

import argparse
import gc
import itertools
import json
import os
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import Interrupted, continued_with, told
from hypercrl.base.progress import Progress
from hypercrl.base.strict_json import write_json
from hypercrl.config.compose import composed
from hypercrl.config.overrides import setting
from hypercrl.report.formats import count
from hypercrl.training.result import git_revision, machine, summarise
from hypercrl.training.run import Run, begun, resumed
from hypercrl.training.trainer import Trainer

KINDS: tuple[dict[str, Any], ...] = (
    {"task": "push", "densities": [100, 500]},
    {"task": "door", "handle": "pull"},
    {"task": "cheetah"},
    {"task": "slide", "friction": 0.1},
    {"task": "gym", "id": "Reacher-v5", "reward": "hypercrl_envs.gym_rewards:reacher"},
)
ROUNDS = 4
TASKS = ROUNDS * len(KINDS)

MOST_RSS = 0.02
"""Growth of the resident memory after the first round, as a share of it."""
MOST_TIME = 0.10
"""Growth of a step's median time from the first round to the last one, in each kind of task."""
MOST_CHECKPOINT = 0.02
"""Growth of a checkpoint after the first round beyond what the method keeps of more tasks."""


def settings(steps: int) -> list[str]:
    """Of a run of so many control steps in all, a fifth of them random."""
    each = steps // TASKS
    values: dict[str, Any] = {
        "device": "cpu",
        "threads": 1,
        "preset": "smoke",
        "method": "hnet",
        "method.regularised_tasks": 1,
        "memory": "gru",
        "memory.width": 8,
        "context": {"burn_in": 8, "horizon": 4, "windows": 8, "protect": "none"},
        "dynamics.hidden": [32, 32],
        "env": {"name": "soak", "pad": True, "tasks": list(KINDS) * ROUNDS},
        "planner": {"samples": 16, "horizon": 4, "iterations": 2, "elites": 4},
        "protocol": {
            "num_tasks": None,
            "random_steps": each // 5,
            "planned_steps": each - each // 5,
            "update_every": each // 10,
            "updates": 20,
            "eval_every": steps,
            "eval_episodes": 1,
            "final_episodes": 1,
            "heldout_episodes": 1,
            "prediction_horizon": 5,
            "replay_capacity": each // 10,
            "checkpoint_every": each // 5,
        },
    }
    return [setting(key, value) for key, value in values.items()]


class Watched(Trainer):
    """Trains, and notes at the end of every task what the process holds and how long steps took."""

    def __init__(self, run: Run, progress: Progress) -> None:
        super().__init__(run.experiment, run.folder, progress)
        self.path = run.folder.path / "soak.json"
        self.rows: list[dict[str, Any]] = []
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self.largest = 0

    def run(self, resumed: dict[str, Any] | None = None, checkpoint: str = "latest") -> None:
        """The rows of tasks that are trained again are dropped."""
        if resumed is not None and self.path.exists():
            done = resumed["position"]["task"]
            self.rows = [row for row in json.loads(self.path.read_text()) if row["task"] <= done]
        super().run(resumed, checkpoint)

    def _act(self, planned: bool) -> None:
        started = time.perf_counter()
        super()._act(planned)
        kind = "planned" if planned else "random"
        self.milliseconds[kind].append(1e3 * (time.perf_counter() - started))

    def _update(self, updates: int) -> None:
        started = time.perf_counter()
        super()._update(updates)
        self.milliseconds["update"].append(1e3 * (time.perf_counter() - started) / updates)

    def _checkpoint(self, name: str) -> None:
        super()._checkpoint(name)
        self.largest = max(self.largest, self.folder.checkpoint_path(name).stat().st_size)

    def _end_task(self, task: int) -> None:
        super()._end_task(task)
        gc.collect()  # what nobody refers to is no leak
        row = {
            "task": task + 1,
            "kind": KINDS[task % len(KINDS)]["task"],
            "round": task // len(KINDS),
            "process": os.getpid(),
            "env_steps": self.position.env_steps,
            **resident_bytes(),
            "files": len(os.listdir("/proc/self/fd")),
            "checkpoint": self.largest,
            "kept": self.tallies.memory_bytes[-1],
            **{k: statistics.median(v) for k, v in self.milliseconds.items()},
        }
        self.rows.append(row)
        write_json(self.path, self.rows, indent=2)
        self.milliseconds.clear()
        self.largest = 0


def resident_bytes() -> dict[str, int]:
    """Of this process, now: in all, and its own, without the pages of files that are mapped, which
    the system takes back and reads again as it needs room for others."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {line[0]: 1024 * int(line[1]) for line in lines if line[0].startswith(("VmRSS", "Rss"))}
    return {"rss": found["VmRSS:"], "own": found["RssAnon:"]}


def train(run: AbstractContextManager[Run]) -> None:
    """The run to its end."""
    with run as going, Progress(Console(), TASKS) as progress:
        trainer = Watched(going, progress)
        name, state = going.checkpoint or ("latest", None)
        trainer.run(state, name)
        progress.finish()
        going.folder.write_result(summarise(trainer))


def findings(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name → what was found, what is allowed, and whether it held.

    Memory and files are of the last process alone, where the run was ended and gone on with.
    """
    settled, last = rows[len(KINDS) - 1], rows[-1]
    mine = [row for row in rows if row["process"] == last["process"]]
    warm, *later = mine[min(len(KINDS), len(mine)) - 1 :]
    surplus = (last["checkpoint"] - settled["checkpoint"]) - (last["kept"] - settled["kept"])
    found = {
        "resident memory": (trend([warm, *later], "rss"), MOST_RSS),
        "of it the process's own": (trend([warm, *later], "own"), MOST_RSS),
        "open files": (max((row["files"] for row in later), default=0) - warm["files"], 0),
        "checkpoint": (surplus / settled["checkpoint"], MOST_CHECKPOINT),
    }
    for step, ratios in slowing(rows).items():
        found[f"time of a {step} step"] = (max(ratios.values()), MOST_TIME)
    return {k: {"grew": v, "most": m, "held": v <= m} for k, (v, m) in found.items()}


def trend(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Growth from the first row to the last along the line of Theil (1950) and Sen (1968).

    Its slope is the median over all pairs: what a process holds goes up and down by some per cent
    with what the allocator gives back, and neither one low value at the beginning nor one high
    value later is growth.
    """
    slopes = [
        (b[name] - a[name]) / (b["env_steps"] - a["env_steps"])
        for a, b in itertools.combinations(rows, 2)
    ]
    steps = rows[-1]["env_steps"] - rows[0]["env_steps"]
    return statistics.median(slopes) * steps / rows[0][name] if slopes else 0.0


def slowing(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Kind of step → kind of task → growth of its median time between first and last round.

    Of a task that was gone on with only the steps since then have a time, and there may be none.
    """
    pairs = list(zip(rows[: len(KINDS)], rows[-len(KINDS) :], strict=True))
    return {
        step: {
            first["kind"]: last[step] / first[step] - 1
            for first, last in pairs
            if step in first and step in last
        }
        for step in ("random", "planned")
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a task."""
    head = ("task", "kind", "steps", "resident MB", "own MB", "files", "checkpoint kB", "kept kB")
    steps = ("random", "planned", "update")
    lines = ["| " + " | ".join((*head, *(f"{step} ms" for step in steps))) + " |"]
    lines.append("|---" * (len(head) + len(steps)) + "|")
    for row in rows:
        cells = [row["task"], row["kind"], row["env_steps"]]
        cells += [f"{row['rss'] / 1e6:.1f}", f"{row['own'] / 1e6:.1f}", row["files"]]
        cells += [f"{row['checkpoint'] / 1e3:.1f}", f"{row['kept'] / 1e3:.1f}"]
        cells += [f"{row[step]:.3f}" if step in row else "" for step in steps]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def verdicts(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each finding."""
    lines = ["| | grew | at most | |", "|---|---|---|---|"]
    for name, each in found.items():
        whole = isinstance(each["most"], int)
        grew, most = (
            (str(x) if whole else f"{100 * x:+.2f} %") for x in (each["grew"], each["most"])
        )
        lines.append(f"| {name} | {grew} | {most} | {'held' if each['held'] else 'FAILED'} |")
    return "\n".join(lines) + "\n"


def write(rows: Sequence[dict[str, Any]], ran: dict[str, Any], out: Path) -> bool:
    """`out`.json and `out`.md; whether everything held."""
    found, slower = findings(rows), slowing(rows)
    print(verdicts(found))
    write_json(
        out.with_suffix(".json"),
        {**ran, "findings": found, "step time growth": slower, "rows": list(rows)},
        indent=2,
    )
    kinds = "; ".join(
        f"{step}: " + ", ".join(f"{kind} {100 * v:+.1f} %" for kind, v in ratios.items())
        for step, ratios in slower.items()
    )
    failed = [name for name, each in found.items() if not each["held"]]
    answer = f"Yes: {', '.join(failed)}." if failed else "No more than is allowed."
    text = (
        "# Soak\n\n"
        f"Does anything grow in a long run that should not? {answer} "
        f"{len(rows)} tasks were learned one after another, {count(rows[-1]['env_steps'])} control "
        "steps in all.\n\n"
        f"`{ran['command']}`, commit {ran['commit']}, {ran['machine']}.\n\n"
        f"{verdicts(found)}\n"
        f"Against what there was after the first {len(KINDS)} tasks. Memory: along the line of "
        "Theil and Sen. Files: the most. Checkpoint: what grew beyond what the method keeps of "
        f"more tasks. Times: the median in the last {len(KINDS)} tasks against that in the first "
        f"{len(KINDS)}, each kind of task against itself, and of these the largest. {kinds}.\n\n"
        f"{table(rows)}"
    )
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    return all(each["held"] for each in found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=100_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    command = f"python scripts/soak.py {shlex.join(sys.argv[1:])}"
    about = {
        "command": command,
        "commit": git_revision(),
        "machine": machine(torch.device("cpu")),
    }
    if not (given.run / "result.json").exists():
        begins = not (given.run / "config.yaml").exists()
        with continued_with(command):
            words = settings(given.steps)
            train(begun(composed("train", words), given.run) if begins else resumed(given.run))
    rows = json.loads((given.run / "soak.json").read_text())
    return 0 if write(rows, about, given.out) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"soak: {error}")
    except Interrupted as interrupt:
        sys.exit(f"soak: {told(interrupt)}")
