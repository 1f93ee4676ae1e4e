"""Are tasks that come again known again? One table over runs without labels, and with them.

    python scripts/revisits.py FOLDER [--limit SECONDS] [--out FILE.json] [SETTING=VALUE ...]

Runs what is not there yet of two grids, with `hypercrl bench`, and shows what has ended by the
limit: both sequences without labels and with them, then without them and with blurred boundaries.
Settings take the place of the grids' own: task_id=inferred leaves out what labels are given to.

A return is known again if at its end the agent acts with the task that it had at the end of the
first visit, and had made in it; a new task is found if it made one in it. Success is the mean over
all tasks after the last one, and its share that of the runs with labels, of the seeds of both.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from hypercrl.base.strict_json import write_json
from hypercrl.config.schema import learned_tasks

GRID = (
    *("env=push_revisits,push_frame_revisits", "seed=range(6)", "method=hnet", "preset=quick"),
    *("protocol.num_tasks=5", "protocol.eval_every=100000", "protocol.eval_tasks=0"),
    *("protocol.final_episodes=10", "protocol.heldout_episodes=1", "logger=[]"),
    *("simulators=1", "threads=1"),
)
PARTS = {
    "sharp": ("task_id=inferred,given",),
    "blurred": ("task_id=inferred", "protocol.blur=600"),
}
GRACE = 10
"""Seconds in which a grid that is stopped may save its runs."""

COLUMNS = (
    *("env", "blur", "labels", "runs", "known again", "found new", "one too many"),
    *("delay, median", "success, mean", "of the given", "worst run", "seconds"),
)


@dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        returns: whether each return was known again; news: whether each other task but the first
            was found to be new; extra: tasks made beyond these.
        delays: steps from the boundary to the decision, of right ones.
        success: of each task at the end.
    """

    env: str
    labels: str
    blur: int
    seed: int
    returns: list[bool]
    news: list[bool]
    extra: int
    delays: list[int]
    success: list[float]
    seconds: float
    commit: str | None


def run_grids(folder: Path, words: Sequence[str], limit: float) -> None:
    """Both grids, one after the other; what has not ended by the limit, in seconds, is stopped."""
    end = time.monotonic() + limit
    for part, own in PARTS.items():
        if time.monotonic() >= end:
            return
        given = {word.partition("=")[0] for word in words}
        kept = [word for word in (*own, *GRID) if word.partition("=")[0] not in given]
        command = ["bench", f"out={folder / part}", *kept, *words]
        log = (folder / f"{part}.log").open("a")
        with log, subprocess.Popen(
            [sys.executable, "-m", "hypercrl", *command],
            stdout=log, stderr=log, start_new_session=True,
        ) as bench:  # fmt: skip
            try:
                bench.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                os.killpg(bench.pid, signal.SIGTERM)
                try:
                    bench.wait(GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(bench.pid, signal.SIGKILL)


def read(folder: Path) -> Run:
    result = json.loads((folder / "result.json").read_text())
    config: Any = OmegaConf.load(folder / "config.yaml")
    tasks = list(learned_tasks(config))
    identities = [tasks.index(task) for task in tasks]
    steps = config.protocol.random_steps + config.protocol.planned_steps
    found = judged(result.get("decisions", []), identities, steps)
    return Run(
        result["env"], result["task_id"], config.protocol.blur, result["seed"], *found,
        result["success"][-1], result["seconds"], result["git"],
    )  # fmt: skip


def judged(
    decisions: Sequence[Mapping[str, Any]], identities: Sequence[int], steps: int
) -> tuple[list[bool], list[bool], int, list[int]]:
    """`returns`, `news`, `extra` and `delays` of a `Run`, of tasks that last so many steps."""
    returns: list[bool] = []
    news: list[bool] = []
    delays: list[int] = []
    at_end: dict[int, int | None] = {0: 0}
    believed = 0
    for task, identity in enumerate(identities):
        here = [d for d in decisions if d["task"] == task]
        believed = here[-1]["chosen"] if here else believed
        made = [d["chosen"] for d in here if d["new"]]
        if identity == task:
            right = not task or believed in made
            at_end[task] = believed if right else None
            if task:
                news.append(right)
        else:
            right = believed == at_end[identity]
            returns.append(right)
        if task and right and here:
            first = next(d for d in here if d["chosen"] == believed)
            delays.append(first["env_step"] - task * steps)
    extra = sum(d["new"] for d in decisions) - sum(news)
    return returns, news, extra, delays


def share_of(runs: Sequence[Run], given: Sequence[Run]) -> float | None:
    """Success of runs over that of those with labels, of the seeds that both have; None without."""
    seeds = {run.seed for run in runs} & {run.seed for run in given}
    found, wanted = (
        [mean(run.success) for run in each if run.seed in seeds] for each in (runs, given)
    )
    return sum(found) / sum(wanted) if sum(wanted) else None


def table(runs: Sequence[Run]) -> Table:
    groups: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.env, run.blur, run.labels, run.seed)):
        groups[run.env, run.blur, run.labels].append(run)
    shown = Table(title="returns known again", caption="seconds: of the slowest run")
    for column in COLUMNS:
        shown.add_column(column)
    for (env, blur, labels), of in groups.items():
        success = mean(mean(run.success) for run in of)
        given = groups.get((env, blur, "given")) or groups.get((env, 0, "given"), [])
        share = share_of(of, given)
        delays = [delay for run in of for delay in run.delays]
        known = [known for run in of for known in run.returns]
        new = [found for run in of for found in run.news]
        inferred = [
            f"{sum(known)} of {len(known)}", f"{sum(new)} of {len(new)}",
            str(sum(run.extra for run in of)), f"{median(delays):.0f}" if delays else "",
        ]  # fmt: skip
        shown.add_row(
            env.removesuffix("_revisits"), str(blur), labels, str(len(of)),
            *(inferred if labels == "inferred" else [""] * 4), f"{success:.3f}",
            "" if share is None else f"{share:.3f}",
            f"{min(mean(run.success) for run in of):.2f}", f"{max(run.seconds for run in of):.0f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the grids")
    parser.add_argument("settings", nargs="*", help="of hypercrl bench and train")
    parser.add_argument("--limit", type=float, default=inf, help="seconds for both grids")
    parser.add_argument("--out", type=Path, help="JSON file for every run")
    arguments = parser.parse_intermixed_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run_grids(arguments.folder, arguments.settings, arguments.limit)
    runs = [read(result.parent) for result in sorted(arguments.folder.rglob("result.json"))]
    console = Console(width=160)
    console.print(table(runs))
    for run in runs:
        if run.labels == "inferred" and not all([*run.returns, *run.news]):
            what = f"{run.env} blur {run.blur} seed {run.seed}: known again {run.returns}, new "
            console.print(f"{what}{run.news}, success {[round(s, 2) for s in run.success]}")
    if arguments.out:
        write_json(arguments.out, [asdict(run) for run in runs], indent=1)


if __name__ == "__main__":
    main()
