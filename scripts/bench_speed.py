"""This build beside an older one on the same machine: check, then time, then one table.

    python scripts/bench_speed.py [--before TREE] [--parts run step plan evaluate collect]
                                  [--turns 1] --out FOLDER

TREE is the older build's source, as `git archive COMMIT` gives it. The builds are timed one after
the other, each part in a process of its own, by the build's own script if it has one:

- run: the whole of `hypercrl train preset=paper env=push method=hnet`, by parts, and the success of
  each task after the last one; here with sixteen robots, as with one
- step: a training step of hnet at 1 to 100 old tasks, in a graph (bench_training.py)
- plan: plans of push, door, cheetah, and of 64 pushes in one call (bench_planner.py)
- evaluate: rounds a second of evaluations, by how many plans are ahead (bench_evaluation.py)
- collect: steps a second of 1 to 16 robots, planned for and stored (bench_collection.py); as often
  as --turns says, by turns

What matters most comes first, and all of it ends within --limit seconds: what ends late, or is not
begun for want of time, is a row that says so. FOLDER/speed.json has all rows as they come. With
--device cpu everything is tried on a small scale.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hypercrl.base.strict_json import write_json
from hypercrl.training.result import git_revision, machine

ROOT = Path(__file__).parents[1]
PLANS = {"push": 0.25, "door": 0.32, "cheetah": 0.55, "push x64": 1.6}
"""Milliseconds that are aimed at."""
TARGETS = {"19 old": 0.15, **PLANS, "whole": 75.0, "evaluation": 6.0}
RATIOS = {
    ("run", "whole", "16 robots"): ("before", "whole", "one robot", 0.4),
    ("step", "100 old", ""): ("this", "2 old", "", 1.3),
    ("collect", "16 robots", ""): ("this", "1 robots", "", 8.0),
}
"""(part, what, variant) of this build: what it is divided by, and the ratio that is aimed at."""
PAPER = ("preset=paper", "env=push", "method=hnet", "seed=0")
VARIANTS = {"one robot": (), "16 robots": ("protocol.robots=16", "simulators=16")}
TIMED = {
    "cuda": {("graph", "ours, device"), ("device", "ours, cem")},
    "cpu": {("wall", "ours, eager"), ("wall", "ours, cem")},
}
"""Parts and variants of the other scripts' rows."""
JOBS = (
    ("this", "run", "16 robots"),
    ("before", "run", "one robot"),
    *((build, part, "") for part in ("step", "plan") for build in ("before", "this")),
    ("this", "evaluate", ""),
    *((build, "collect", "") for build in ("this", "before")),
    ("before", "evaluate", ""),
    ("this", "run", "one robot"),
)
"""What is measured, the most important first. The run alone took 57, 158 and 120 s on an H200."""


@dataclass(frozen=True)
class Build:
    """A tree of sources; processes of it end at `deadline` of the monotonic clock."""

    name: str
    tree: Path
    device: str
    deadline: float

    def script(self, name: str, *words: str, seconds: float) -> str | None:
        """Run one of its scripts; what went wrong, if anything."""
        if not (self.tree / "scripts" / name).exists():
            return f"this build has no scripts/{name}"
        return self.python(f"scripts/{name}", "--device", self.device, *words, seconds=seconds)

    def python(self, *words: str, seconds: float) -> str | None:
        """Run Python on these words; what went wrong, if anything."""
        left = self.deadline - time.monotonic()
        if left < 5:
            return "not begun: no time is left"
        seconds = min(seconds, left)
        paths = [self.tree, self.tree / "envs", self.tree / "kernels"]
        rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        others = [path for path in rest if path and not Path(path).is_relative_to(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *others])}
        environment.setdefault("OMP_NUM_THREADS", "4")  # of every build, also without threads=
        command = [sys.executable, *words]
        try:
            subprocess.run(
                command, cwd=self.tree, env=environment, timeout=seconds, check=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"not done within {seconds:.0f} s"
        except subprocess.CalledProcessError as error:
            return (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        return None


@dataclass(frozen=True)
class Row:
    """One figure of one build, in milliseconds, seconds, steps a second or shares."""

    build: str
    part: str
    what: str
    unit: str
    value: float | None
    variant: str = ""
    failed: str | None = None


def graph_rows(build: Build, part: str, out: Path, seconds: float) -> Iterator[Row]:
    """Of the scripts that write workloads with the times of variants."""
    script = {"step": "bench_training.py", "plan": "bench_planner.py"}[part]
    file = out / f"{part}_{build.name}.json"
    file.unlink(missing_ok=True)  # that of an earlier measurement
    plans = PLANS if build.device == "cuda" else ("push",)
    only = ("--only", *plans, "--repeats", "5") if part == "plan" else ()
    failed = build.script(script, "--out", str(file), *only, seconds=seconds)
    if failed:
        yield Row(build.name, part, script, "ms", None, failed=failed)
    for row in json.loads(file.read_text())["rows"] if file.exists() else []:
        if row["part"] == "check" or (row["part"], row["variant"]) in TIMED[build.device]:
            yield _timed_row(row, part, build)


def _timed_row(row: dict[str, Any], part: str, build: Build) -> Row:
    name = row["workload"]
    if "error" in row:
        return Row(build.name, part, name, "ms", None, failed=row["error"])
    if row["part"] == "check":
        return Row(build.name, part, f"{name}: {row['variant']}", "share", row["share"])
    return Row(build.name, part, name, "ms", 1e-3 * row["median_us"])


def evaluated_rows(build: Build, out: Path, seconds: float, variant: str) -> Iterator[Row]:
    file = out / f"evaluate_{build.name}.json"
    words = ("planner.samples=16", "planner.elites=4", "planner.iterations=1")
    small = ("--simulators", "2", "--words", *words)
    sizes = ("--times", "2", *(() if build.device == "cuda" else small))
    failed = build.script("bench_evaluation.py", "--out", str(file), *sizes, seconds=seconds)
    if failed:
        yield Row(build.name, "evaluate", "rounds", "rounds/s", None, variant, failed)
        return
    for row in json.loads(file.read_text())["rows"]:
        name = f"{row['size']}, {row['ahead']} ahead" if "size" in row else row["way"]
        yield Row(build.name, "evaluate", name, "rounds/s", row["rounds_per_second"], variant)


def collected_rows(build: Build, out: Path, seconds: float, variant: str) -> Iterator[Row]:
    file = out / f"collect_{build.name}.json"
    small = ("--robots", "1", "2", "--steps", "1")
    sizes = ("--robots", "1", "16") if build.device == "cuda" else small
    failed = build.script("bench_collection.py", "--out", str(file), *sizes, seconds=seconds)
    if failed:
        yield Row(build.name, "collect", "robots", "steps/s", None, variant, failed)
        return
    for row in json.loads(file.read_text())["rows"]:
        name = f"{row['robots']} robots"
        yield Row(build.name, "collect", name, "steps/s", row["steps_per_second"], variant)


def run_rows(build: Build, out: Path, seconds: float, variant: str) -> Iterator[Row]:
    """Seconds of a whole run by what they were spent on, and what it learned."""
    run = out / "runs" / f"{build.name}_{variant.replace(' ', '_')}"
    words = [*PAPER, f"device={build.device}", *VARIANTS[variant], f"run_dir={run}"]
    if build.device == "cpu":
        words = [word.replace("=paper", "=smoke").replace("=16", "=2") for word in words]
    started = time.perf_counter()
    failed = build.python("-m", "hypercrl", "train", *words, seconds=seconds)
    wall = time.perf_counter() - started
    if failed:
        yield Row(build.name, "run", "whole", "s", None, variant, failed)
        return
    result = json.loads((run / "result.json").read_text())
    whole = {"whole": result["seconds"], "whole, by the clock": wall}
    for what, spent in {**whole, **result["seconds_by"]}.items():
        yield Row(build.name, "run", what, "s", spent, variant)
    for task, success in enumerate(result["success"][-1], 1):
        yield Row(build.name, "run", f"task {task}", "success", success, variant)
    for count in ("updates", "env_steps"):
        yield Row(build.name, "run", count, "count", result[count], variant)


def measured(
    builds: Sequence[Build], parts: Sequence[str], out: Path, limit: float, turns: int = 1
) -> Iterator[Row]:
    by_name = {build.name: build for build in builds}
    for name, part, variant in jobs(turns):
        if part not in parts or name not in by_name:
            continue
        build = by_name[name]
        if part == "run":
            yield from run_rows(build, out, limit, variant)
        elif part == "collect":
            yield from collected_rows(build, out, limit, variant)
        elif part == "evaluate":
            yield from evaluated_rows(build, out, limit, variant)
        else:
            yield from graph_rows(build, part, out, limit)


def jobs(turns: int) -> Iterator[tuple[str, str, str]]:
    """Those of collect as often as there are turns; whoever was last begins."""
    collects = [job for job in JOBS if job[1] == "collect"]
    for job in JOBS:
        yield job
        if job == collects[-1]:
            for turn in range(2, turns + 1):
                for name, part, _ in collects[:: 1 if turn % 2 else -1]:
                    yield name, part, f"turn {turn}"


def show(rows: Sequence[Row]) -> Iterator[str]:
    """The builds side by side, what they learned, the ratios that are aimed at, what failed."""
    yield from table([row for row in rows if row.part == "run" and row.unit != "success"])
    yield from table([row for row in rows if row.part != "run"])
    yield from learned(rows)
    yield from ratios(rows)
    for row in rows:
        if row.failed:
            yield f"{row.build}, {row.part} {row.what} {row.variant}: {row.failed}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    columns = dict.fromkeys((row.build, row.variant) for row in rows)
    names = [", ".join(filter(None, column)) for column in columns]
    yield f"{'':44}" + "".join(f"{name:>18}" for name in (*names, "target"))
    values = {(row.part, row.what, row.build, row.variant): row for row in rows}
    for part, what, unit in dict.fromkeys((row.part, row.what, row.unit) for row in rows):
        cells = [_cell(values.get((part, what, *column))) for column in columns]
        aim = f"{TARGETS[what]:g}" if what in TARGETS else ""
        yield f"{f'{part} {what}, {unit}':44}" + "".join(f"{c:>18}" for c in (*cells, aim))


def learned(rows: Sequence[Row]) -> Iterator[str]:
    """Success after the last task, task by task."""
    by: dict[str, list[float]] = {}
    for row in rows:
        if row.unit == "success" and row.value is not None:
            by.setdefault(f"{row.build}, {row.variant}", []).append(row.value)
    for name, won in by.items():
        each = " ".join(f"{share:.2f}" for share in won)
        yield f"success per task, {name}: {each}, mean {sum(won) / len(won):.3f}"


def ratios(rows: Sequence[Row]) -> Iterator[str]:
    values = {(row.part, row.what, row.build, row.variant): row.value for row in rows}
    for (part, what, variant), (build, of, of_variant, target) in RATIOS.items():
        this = values.get((part, what, "this", variant))
        other = values.get((part, of, build, of_variant))
        if this and other:
            names = [", ".join(filter(None, n)) for n in ((what, variant), (of, of_variant))]
            said = f"{this / other:.3f} (target {target:g})"
            yield f"{part}: {names[0]}, by {build}'s {names[1]}: {said}"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return "failed" if row.value is None else f"{row.value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="the older build's tree")
    every = ["run", "step", "plan", "evaluate", "collect"]
    parser.add_argument("--parts", nargs="+", default=every, choices=every)
    parser.add_argument("--turns", type=int, default=1, help="of collect")
    parser.add_argument("--device", default="cuda", choices=TIMED)
    parser.add_argument("--seconds", type=float, default=240.0, help="at most, for each process")
    parser.add_argument("--limit", type=float, default=570.0, help="seconds, for everything")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    begun = time.monotonic()
    trees = {"before": given.before, "this": ROOT}
    builds = [
        Build(name, tree.resolve(), given.device, begun + given.limit)
        for name, tree in trees.items()
        if tree
    ]
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    about = {"git": git_revision(), "before": str(given.before) if given.before else None}
    about |= {"machine": machine(torch.device(given.device)), "torch": torch.__version__}
    rows: list[Row] = []
    for row in measured(builds, given.parts, out, given.seconds, given.turns):
        rows.append(row)
        said = row.failed or row.value
        name = " ".join(filter(None, (row.build, row.part, row.variant, row.what)))
        print(f"{time.monotonic() - begun:4.0f}s {name}: {said} {row.unit}", flush=True)
        write_json(out / "speed.json", {**about, "rows": [vars(row) for row in rows]}, indent=2)
    print(*show(rows), sep="\n")


if __name__ == "__main__":
    main()
