"""This build beside an older one on the same GPU: check, then time, then one table.

    python scripts/bench_speed.py [--before TREE] [--parts step plan collect run] --out FOLDER

TREE is the older build's source, as `git archive COMMIT` gives it. Every part is timed in both
builds one after the other, each in a process of its own, by the build's own script if it has one:

- step: a training step of hnet at 1 to 100 old tasks, in a graph (bench_training.py)
- plan: plans of push, door, cheetah, and of 64 pushes in one call (bench_planner.py)
- collect: steps a second of 1 to 16 robots, planned for and stored (bench_collection.py)
- run: the whole of `hypercrl train preset=paper env=push method=hnet`, by parts; here with sixteen
  robots, as with one

A part that ends late or not at all is a row that says so. Results are written as they come.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hypercrl.base.strict_json import write_json

ROOT = Path(__file__).parents[1]
PLANS = {"push": 0.25, "door": 0.32, "cheetah": 0.55, "push x64": 1.6}
"""Milliseconds that are aimed at."""
STEPS = {"19 old": 0.15}
DEVICE_TIMES = {("graph", "ours, device"), ("device", "ours, cem")}
"""Parts and variants of the other scripts' rows."""
RUN = ("preset=paper", "env=push", "method=hnet", "seed=0", "device=cuda", "threads=4", "logger=[]")
VARIANTS = {"one robot": (), "16 robots": ("protocol.robots=16", "simulators=16")}


@dataclass(frozen=True)
class Build:
    """A tree of sources."""

    name: str
    tree: Path

    def python(self, *words: str, seconds: float) -> str | None:
        """Run Python on these words; what went wrong, if anything."""
        paths = [self.tree, self.tree / "envs", self.tree / "kernels"]
        rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        others = [path for path in rest if path and not Path(path).is_relative_to(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *others])}
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
    """One figure of one build, in milliseconds, seconds or steps a second."""

    part: str
    what: str
    build: str
    unit: str
    value: float | None
    target: float | None = None
    failed: str | None = None


def graph_rows(build: Build, part: str, out: Path, seconds: float) -> Iterator[Row]:
    """Of the scripts that write workloads with device times."""
    script, targets = {
        "step": ("bench_training.py", STEPS),
        "plan": ("bench_planner.py", PLANS),
    }[part]
    file = out / f"{part}_{build.name}.json"
    only = ("--only", *PLANS) if part == "plan" else ()
    words = (f"scripts/{script}", "--device", "cuda", "--out", str(file), *only)
    failed = build.python(*words, seconds=seconds)
    if failed and not file.exists():
        yield Row(part, script, build.name, "ms", None, failed=failed)
        return
    for row in json.loads(file.read_text())["rows"]:
        if row["part"] == "check" or (row["part"], row["variant"]) in DEVICE_TIMES:
            yield from _device_row(row, part, build, targets)


def _device_row(
    row: dict[str, Any], part: str, build: Build, targets: dict[str, float]
) -> Iterator[Row]:
    name = f"{row['workload']}, {row['variant']}"
    if "error" in row:
        yield Row(part, name, build.name, "ms", None, failed=row["error"])
    elif row["part"] == "check":
        yield Row(part, name, build.name, "share", row["share"])
    else:
        target = targets.get(row["workload"])
        yield Row(part, name, build.name, "ms", 1e-3 * row["median_us"], target)


def collected_rows(build: Build, out: Path, seconds: float) -> Iterator[Row]:
    file = out / f"collect_{build.name}.json"
    words = ("scripts/bench_collection.py", "--robots", "1", "8", "16", "--out", str(file))
    failed = build.python(*words, seconds=seconds)
    if failed:
        yield Row("collect", "robots", build.name, "steps/s", None, failed=failed)
        return
    for row in json.loads(file.read_text())["rows"]:
        name = f"{row['robots']} robots"
        yield Row("collect", name, build.name, "steps/s", row["steps_per_second"])


def run_rows(build: Build, out: Path, seconds: float, variant: str) -> Iterator[Row]:
    """Seconds of a whole run by what they were spent on, and what it learned."""
    run = out / "runs" / f"{build.name}_{variant.replace(' ', '_')}"
    words = ("-m", "hypercrl", "train", *RUN, *VARIANTS[variant], f"run_dir={run}")
    started = time.perf_counter()
    failed = build.python(*words, seconds=seconds)
    wall = time.perf_counter() - started
    if failed:
        yield Row("run", variant, build.name, "s", None, failed=failed)
        return
    result = json.loads((run / "result.json").read_text())
    targets = {"whole": 75.0, "evaluation": 6.0}
    whole = {"wall": wall, "whole": result["seconds"]}
    for what, spent in {**whole, **result["seconds_by"]}.items():
        yield Row("run", f"{variant}: {what}", build.name, "s", spent, targets.get(what))
    for task, success in enumerate(result["success"][-1], 1):
        yield Row("run", f"{variant}: success {task}", build.name, "share", success)
    for count in ("updates", "env_steps"):
        yield Row("run", f"{variant}: {count}", build.name, "count", result[count])


def measured(builds: list[Build], parts: list[str], out: Path, seconds: float) -> Iterator[Row]:
    for part in parts:
        for build in builds:
            if part == "collect":
                yield from collected_rows(build, out, seconds)
            elif part == "run":
                for variant in VARIANTS if build.name == "this" else ("one robot",):
                    yield from run_rows(build, out, seconds, variant)
            else:
                yield from graph_rows(build, part, out, seconds)


def show(rows: list[Row]) -> None:
    """The two builds side by side, with their ratio and the target."""
    values: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        values.setdefault((row.part, row.what, row.unit), {})[row.build] = row
    print(f"{'':40} {'before':>10} {'this':>10} {'ratio':>7} {'target':>8}")
    for (part, what, unit), by in values.items():
        cells = [_cell(by.get(build)) for build in ("before", "this")]
        before, now = (by[b].value if b in by else None for b in ("before", "this"))
        ratio = f"{now / before:.2f}" if before and now else ""
        target = next((f"{row.target:g}" for row in by.values() if row.target), "")
        print(f"{f'{part} {what}, {unit}':40} {cells[0]:>10} {cells[1]:>10} {ratio:>7} {target:>8}")
    for row in rows:
        if row.failed:
            print(f"{row.build}, {row.part}, {row.what}: {row.failed}")


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return "failed" if row.value is None else f"{row.value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="the older build's tree")
    every = ["step", "plan", "collect", "run"]
    parser.add_argument("--parts", nargs="+", default=every, choices=every)
    parser.add_argument("--seconds", type=float, default=400.0, help="at most, for each process")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    builds = [Build("this", ROOT)]
    if given.before:
        builds.insert(0, Build("before", given.before.resolve()))
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in measured(builds, given.parts, out, given.seconds):
        rows.append(row)
        print(f"{row.build:7} {row.part} {row.what}: {row.failed or row.value}", flush=True)
        about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        write_json(out / "speed.json", {**about, "rows": [vars(row) for row in rows]}, indent=2)
    show(rows)


if __name__ == "__main__":
    main()
