"""`make train` by this build and by an older one on a CPU, by turns, and what the time goes into.

    python scripts/bench_quick.py --before TREE [--threads 2] [--clock wall|cpu] [--rounds N]
                                  [--seeds 0 1 2 3 4] --out FOLDER [SETTING=VALUE ...]

TREE is the older build's source, as `git archive COMMIT` gives it. One round is a whole run of
`hypercrl train env=push method=hnet preset=quick` by each build, in processes of their own; which
goes first alternates. Settings are added to both, such as protocol.num_tasks=1 for a shorter look.

By the clock, nothing else may run. `--clock cpu` counts the process's own CPU time instead, which
other work on the machine changes less; with one thread it is what the run would take alone.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import torch
from bench_speed import ROOT, Build

from hypercrl.base.strict_json import write_json
from hypercrl.training.result import machine

RUN = ("env=push", "method=hnet", "preset=quick", "device=cpu")
SAME = ("updates", "plans", "env_steps")
"""Counts that have to be those of the older build."""

_BY_CPU = """
import time
time.perf_counter = time.process_time  # by which a run times its parts
from hypercrl.cli import main
main({words})
"""


def run(build: Build, seed: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of one run by part, its counts and its success."""
    words = ["train", *RUN, f"seed={seed}", f"run_dir={folder}", *given.settings]
    started, used = time.perf_counter(), _used()
    if given.clock == "cpu":
        failed = build.python("-c", _BY_CPU.format(words=words), seconds=given.seconds)
        process = _used() - used
    else:
        failed = build.python("-m", "hypercrl", *words, seconds=given.seconds)
        process = time.perf_counter() - started
    row = {"build": build.name, "seed": seed}
    if failed:
        return {**row, "failed": failed}
    result = json.loads((folder / "result.json").read_text())
    counts = {name: result[name] for name in SAME}
    by = {"process": process, "run": result["seconds"], **result["seconds_by"]}
    success = result["success"][-1]
    return {**row, "seconds": by, "counts": counts, "success": success}


def _used() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounds(builds: list[Build], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for number in range(given.rounds):
        for seed in given.seeds:
            for build in builds if (number + seed) % 2 == 0 else builds[::-1]:
                folder = given.out / "runs" / f"{build.name}_{seed}_{number}"
                yield {**run(build, seed, given, folder), "round": number}


def table(rows: list[dict[str, Any]], clock: str) -> str:
    """Medians of each build and, of runs that were taken by turns, the median ratio."""
    done = [row for row in rows if "failed" not in row]
    builds = {name: [r for r in done if r["build"] == name] for name in ("before", "this")}
    lines = [f"{clock + ', seconds':16}{'before':>10}{'this':>10}{'ratio':>8}"]
    for part in dict.fromkeys(part for row in done for part in row["seconds"]):
        medians = [
            statistics.median([row["seconds"][part] for row in own]) if own else None
            for own in builds.values()
        ]
        ratios = [
            row["seconds"][part] / other["seconds"][part]
            for row in builds["this"]
            for other in builds["before"]
            if all(row[key] == other[key] for key in ("seed", "round"))
        ]
        cells = "".join(f"{'' if m is None else format(m, '.1f'):>10}" for m in medians)
        ratio = f"{statistics.median(ratios):8.2f}" if ratios else ""
        lines.append(f"{part:16}{cells}{ratio}")
    for name, own in builds.items():
        for row in own:
            lines.append(f"{name}, seed {row['seed']}: success {row['success']} {row['counts']}")
    if len({tuple(row["counts"].values()) for row in done}) > 1:
        lines.append("NOT THE SAME WORK: the counts differ")
    failed = [row for row in rows if "failed" in row]
    lines += [f"{row['build']}, seed {row['seed']}: {row['failed']}" for row in failed]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="the older build's tree")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="at most, for each run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    trees = {"before": given.before.resolve()} if given.before else {}
    trees["this"] = ROOT
    builds = [Build(name, tree, "cpu", inf) for name, tree in trees.items()]
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # an older build has no setting for it
    here = machine(torch.device("cpu"))
    about = {"machine": here, "clock": given.clock, "torch": torch.__version__}
    rows: list[dict[str, Any]] = []
    for row in rounds(builds, given):
        rows.append(row)
        write_json(given.out / "quick.json", {**about, "rows": rows}, indent=2)
        print(row, flush=True)
    print(table(rows, given.clock))


if __name__ == "__main__":
    main()
