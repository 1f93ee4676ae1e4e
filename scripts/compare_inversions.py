"""Beside DMA*-SH on the actuator inversions, step by step: runs of its program, and a page.

    python scripts/compare_inversions.py run --dmash FOLDER --out FILE.jsonl [--only PATTERN,...]
    python scripts/compare_inversions.py page [--kept FILE.jsonl]

`peer_dmash` says what FOLDER is and what runs. A run of which the file has a line is not run again.
The page is docs/results/inversions.md, written by hand but for its tables and its figure; ours is
of the evidence, and with fewer steps of scripts/inversions_curve.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from evidence_grid import check_patterns, fits
from inversions_curve import BUDGETS
from inversions_curve import KEPT as CURVE
from matplotlib.figure import Figure

from hypercrl.base.errors import UserError

SCRIPTS = Path(__file__).resolve().parent
RESULTS = SCRIPTS.parent / "docs" / "results"
PAGE, KEPT = RESULTS / "inversions.md", RESULTS / "inversions.jsonl"
FIGURE = RESULTS.parent / "images" / "inversions_steps.png"
SEEDS = 5
OURS = {
    "double_integrator": (
        ("double_integrator", "hnet, told the task"),
        ("double_integrator_hidden", "hnet, GRU, told nothing"),
    ),
    "complex_ode": (("complex_ode", "hnet, told the task"),),
    "cartpole": (("cartpole", "hnet, told the task"), ("cartpole_3000", "hnet, told the task")),
}
"""Of each page's table: sequences of the evidence, and what the agent is told."""
BEGIN, END = "<!-- {} -->", "<!-- end -->"


def run(options: argparse.Namespace) -> None:
    """Run what is not there yet, each in a process of its own."""
    if options.cell:
        sys.path.append(str(options.dmash.resolve()))
        from peer_dmash import run as run_one

        print(json.dumps(run_one(options.cell, options.steps, options.seconds), allow_nan=False))
        return
    import torch
    from peer_dmash import GROUNDS, WAYS

    from hypercrl.training.result import git_revision, machine

    torch.set_num_threads(1)
    where = {
        "git": options.commit or git_revision(),
        "machine": machine(torch.device("cpu")),
    }
    done = {record["cell"] for record in _read(options.out)}
    every = [f"{of}/{by}/{n}" for n in range(SEEDS) for by in WAYS for of in GROUNDS]
    check_patterns(options.only, every)
    names = [name for name in every if name not in done and fits(name, options.only)]
    _check_program(options.dmash)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.total

    def one(name: str) -> None:
        seconds = min(options.seconds, end - time.monotonic())
        if seconds < 0:
            return
        command = [sys.executable, __file__, "run", "--dmash", str(options.dmash), "--cell", name]
        command += ["--out", str(options.out), "--steps", str(options.steps)]
        command += ["--seconds", str(seconds)]
        alone = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=alone, check=False)
        if ended.returncode:
            print(f"{name} failed", file=sys.stderr)
            return
        line = json.loads(ended.stdout.splitlines()[-1]) | where
        with options.out.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, names))


def _check_program(folder: Path) -> None:
    """Raise UserError where no run could begin."""
    sys.path.append(str(folder.resolve()))
    try:
        importlib.import_module("dmash.contexts")
    except ImportError as error:
        raise UserError(
            f"the program in {folder} cannot be imported ({error}): "
            "scripts/peer_dmash.py says what has to be on the path"
        ) from error


def _read(path: Path) -> list[dict[str, Any]]:
    from evidence_records import read_lines

    return read_lines(path) if path.exists() else []


def page(options: argparse.Namespace) -> None:
    """Put the tables between their marks, and draw the curves that have all of their budgets."""
    from marked_section import with_section

    from hypercrl.base.files import write_atomically

    records = _read(options.kept)
    text = PAGE.read_text(encoding="utf-8")
    ours = curves_of_ours(_read(options.curve))
    tables = {
        "equal steps": at_equal_steps(records),
        "steps": after_fewer_steps(ours),
        "until": until([*ours, *records]),
    }
    for name, table in tables.items():
        text = with_section(text, BEGIN.format(name), END, f"\n{table}\n")
    write_atomically(PAGE, text.encode())
    from hypercrl.report.style import to_png

    if whole := [r for r in ours if set(BUDGETS) < {p["steps"] for p in r["points"]}]:
        write_atomically(FIGURE, to_png(figure(whole, records)))


Records = Sequence[Mapping[str, Any]]


def at_equal_steps(records: Records) -> str:
    """Success and return after as many steps as ours had, of all five seeds or as many as ran."""
    rows = []
    for ground, ours in OURS.items():
        for sequence, told in ours:
            cells = [r for r in _read(RESULTS / "evidence" / f"{sequence}.jsonl") if "cell" in r]
            cells = [r for r in cells if r["cell"].split("/")[1] == "hnet"]
            last = [(r["success"][-1], r["scores"][-1]) for r in cells]
            rows.append(_row(ground, told, cells[0]["env_steps"], cells[0]["updates"], last))
        budgets = (3600, 12000) if ground == "cartpole" else (3600,)
        for of in sorted({r["cell"].split("/")[0] for r in records}):
            if of.removesuffix("_sparse") != ground:
                continue
            for way, what in WAYS_IN_WORDS.items():
                runs = _runs(records, of, way)
                for steps in budgets:
                    points = [p for run in runs for p in run["points"] if p["steps"] == steps]
                    for kind in ("warm", "cold") if way != "told" else ("cold",):
                        scores = [(p[kind]["success"], p[kind]["return"]) for p in points]
                        if scores:
                            label = f"{what}{', sparse reward' * of.endswith('_sparse')}"
                            label += f", {kind}" * (way != "told")
                            rows.append(_row(ground, label, steps, points[0]["updates"], scores))
    return _table(HEADER, rows)


HEADER = ("", "", "seeds", "steps", "updates", "success, task by task", "IQM [95 %]", "return")


def curves_of_ours(lines: Records) -> list[dict[str, Any]]:
    """One record for each ground and seed: all of its budgets, and the evidence's own at the end.

    Args:
        lines: of scripts/inversions_curve.py, of one budget each.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: line["points"][0]["steps"]):
        ground, way, _, seed = line["cell"].split("/")
        found.setdefault(f"{ground}/{way}/{seed}", []).extend(line["points"])
    for ground in sorted({cell.split("/")[0] for cell in found}):
        for whole in _read(RESULTS / "evidence" / f"{ground}.jsonl"):
            if whole.get("cell") in found:
                last = {"success": whole["success"][-1], "return": whole["scores"][-1]}
                counts = {"steps": whole["env_steps"], "updates": whole["updates"]}
                found[whole["cell"]].append({**counts, "cold": last})
    return [{"cell": cell, "points": points} for cell, points in found.items()]


def after_fewer_steps(ours: Records) -> str:
    """Success and return of our agent after each budget."""
    rows = []
    for ground in OURS:
        runs = _runs(ours, ground, "hnet")
        for steps in sorted({p["steps"] for run in runs for p in run["points"]}):
            points = [p for run in runs for p in run["points"] if p["steps"] == steps]
            scores = [(p["cold"]["success"], p["cold"]["return"]) for p in points]
            rows.append(_row(ground, WAYS_IN_WORDS["hnet"], steps, points[0]["updates"], scores))
    return _table(HEADER, rows)


def figure(ours: Records, records: Records) -> Figure:
    """Success against steps, a panel an environment: means over seeds, and seeds as points."""
    from matplotlib import rc_context

    from hypercrl.report.style import STYLE, WIDTH

    grounds = sorted({r["cell"].split("/")[0] for r in ours})
    with rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        panels = drawn.subplots(1, len(grounds), sharey=True, squeeze=False)[0]
        for axes, ground in zip(panels, grounds, strict=True):
            for way, (kind, colour, marker) in DRAWN.items():
                by_steps: dict[int, list[float]] = {}
                for run in _runs([*ours, *records], ground, way):
                    for point in run["points"]:
                        mean = float(np.mean(point[kind]["success"]))
                        by_steps.setdefault(point["steps"], []).append(mean)
                if not by_steps:
                    continue
                at = sorted(by_steps)
                means = [float(np.mean(by_steps[steps])) for steps in at]
                label = WAYS_IN_WORDS[way].replace("\\", "")
                look = {"color": colour, "marker": marker, "markersize": 5}
                axes.plot(at, means, label=label, clip_on=False, **look)
                for steps in at:
                    one = [steps] * len(by_steps[steps])
                    axes.scatter(one, by_steps[steps], s=7, color=colour, alpha=0.5, clip_on=False)
            axes.set_title(ground, fontsize=9.5)
            axes.set_xlabel("steps of all tasks together")
            axes.set_xlim(0, 3700)
            axes.set_ylim(-0.02, 1.02)
        panels[0].set_ylabel("success")
        panels[0].legend(loc="center right", fontsize=8)
    return drawn


DRAWN = {
    "hnet": ("cold", "#0072b2", "o"),
    "four": ("warm", "#d55e00", "s"),
    "told": ("cold", "#009e73", "^"),
}
"""Of the figure: which score, and how it looks."""
WAYS_IN_WORDS = {
    "hnet": "hnet, told the task",
    "one": "DMA\\*-SH, one robot",
    "four": "DMA\\*-SH, four robots",
    "told": "its SAC, told the task",
    "published": "DMA\\*-SH, ten robots",
}
SOLVED = (0.5, 0.9, 0.975)
"""Mean success over the four tasks."""


def until(records: Records) -> str:
    """Steps after which a run had so much success for the first time; how far it went, else."""
    rows = []
    for of in sorted({r["cell"].split("/")[0] for r in records}):
        for way, what in WAYS_IN_WORDS.items():
            runs = _runs(records, of, way)
            if not runs:
                continue
            kind = "cold" if way in ("hnet", "told") else "warm"
            curves = [
                [(p["steps"], float(np.mean(p[kind]["success"]))) for p in run["points"]]
                for run in runs
            ]
            cells = [of, what, str(len(runs))]
            for least in SOLVED:
                first = [min((s for s, x in curve if x >= least), default=None) for curve in curves]
                cells.append(" ".join(f"{s:,}".replace(",", " ") if s else "–" for s in first))
            ends = [f"{s:,}".replace(",", " ") + f": {x:.2f}" for s, x in (c[-1] for c in curves)]
            rows.append([*cells, "; ".join(ends)])
    header = ["", "", "seeds", *(f"{x:g} after" for x in SOLVED), "last score, after"]
    return _table(header, rows)


def _runs(records: Records, ground: str, way: str) -> list[Mapping[str, Any]]:
    mine = [r for r in records if r["cell"].startswith(f"{ground}/{way}/") and r["points"]]
    return sorted(mine, key=lambda r: r["cell"])


def _row(
    ground: str, label: str, steps: int, updates: int, scores: Sequence[tuple[list[float], ...]]
) -> list[str]:
    from hypercrl.metrics import interquartile_mean, interquartile_mean_interval
    from hypercrl.report.comparison import SEEDS_FOR_INTERVAL

    success = np.array([s for s, _ in scores])
    by_task = " ".join(f"{x:.2f}" for x in success.mean(0))
    middle = f"{interquartile_mean(success):.2f}"
    if len(scores) >= SEEDS_FOR_INTERVAL:
        low, high = interquartile_mean_interval(success, np.random.default_rng(0))
        middle += f" [{low:.2f}, {high:.2f}]"
    paid = f"{np.mean([r for _, r in scores]):.1f}"
    counts = [f"{n:,}".replace(",", " ") for n in (steps, updates)]
    return [ground, label, str(len(scores)), *counts, by_task, middle, paid]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="run what is not there yet")
    runs.set_defaults(command=run)
    runs.add_argument("--dmash", type=Path, required=True, help="its program")
    runs.add_argument("--out", type=Path, default=KEPT, help="one line a run is added to it")
    runs.add_argument("--only", default="*", help="patterns of ground/way/seed, with commas")
    runs.add_argument("--steps", type=int, default=3600, help="in all training environments")
    runs.add_argument("--seconds", type=float, default=1e9, help="at most, of a run")
    runs.add_argument("--total", type=float, default=1e9, help="seconds for all of them")
    runs.add_argument("--jobs", type=int, default=1, help="runs side by side, a thread each")
    runs.add_argument("--commit", help="ours, where there is no repository")
    runs.add_argument("--cell", help="run this one here, and print its line")
    tables = commands.add_parser("page", help="write the tables of the page")
    tables.set_defaults(command=page)
    tables.add_argument("--kept", type=Path, default=KEPT, help="lines of runs")
    tables.add_argument("--curve", type=Path, default=CURVE, help="of scripts/inversions_curve.py")
    options = parser.parse_args()
    try:
        options.command(options)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
