"""How many steps our agent needs for the actuator inversions: the evidence's cells, cut shorter.

    python scripts/inversions_curve.py --out FILE.jsonl [--only PATTERN,...] [--seconds SECONDS]

A run is `hnet`, told the task, with all settings of the evidence's cell of its sequence and seed,
but that of every task a part of its steps is taken: a third at random, as there. Updates come every
60 planned steps there and here, so that fewer steps have fewer updates. With all 3600 steps a run
is the evidence's. Lines that are in the file are not run again; scripts/compare_inversions.py draws
them beside DMA*-SH.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evidence_grid import EvidenceCell, check_patterns, fits
from evidence_records import read_lines

from hypercrl.base.strict_json import from_json, to_json
from hypercrl.runs.run_folder import RunFolder

KEPT = Path(__file__).resolve().parents[1] / "docs" / "results" / "inversions_curve.jsonl"
GROUNDS = ("double_integrator", "complex_ode")
BUDGETS = (400, 800, 1200, 1800)
"""Steps of all four tasks together; after 3600 there are the evidence's scores."""
SEEDS = 3
TASKS = 4
CELLS = tuple(f"{g}/hnet/{s}/{n}" for n in range(SEEDS) for s in BUDGETS for g in GROUNDS)
"""Ground, method, steps and seed."""


def words(cell: str) -> list[str]:
    """The settings of `hypercrl train`.

    Success is looked at in ten episodes of every task at the end, as there; between, which costs
    more and changes nothing, of the task just learned alone.
    """
    ground, method, steps, seed = cell.split("/")
    each = int(steps) // TASKS
    split = f"random_steps: {each // 3}, planned_steps: {each - each // 3}"
    between = "eval_tasks: 0, eval_episodes: 1"
    whole = EvidenceCell(ground, method, int(seed)).words()
    return [*whole, f"protocol={{{split}, {between}}}"]


def record(cell: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A run as a run of DMA*-SH is kept, with one point."""
    last = {"success": result["success"][-1], "return": result["scores"][-1]}
    point = {"steps": result["env_steps"], "updates": result["updates"], "cold": last}
    about = {name: result[name] for name in ("seconds", "git", "machine")}
    return {"cell": cell, "points": [point], "words": words(cell), **about}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=KEPT, help="one line a run is added to it")
    parser.add_argument("--only", default="*", help="patterns of ground/hnet/steps/seed")
    parser.add_argument("--seconds", type=float, default=1e9, help="no run begins later")
    options = parser.parse_args()
    check_patterns(options.only, CELLS)
    there = read_lines(options.out) if options.out.exists() else []
    done = {line["cell"] for line in there}
    end = time.monotonic() + options.seconds
    for cell in CELLS:
        if cell in done or not fits(cell, options.only) or time.monotonic() > end:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "hypercrl", "train", *words(cell), f"run_dir={folder}"]
            alone = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(command, stdout=subprocess.DEVNULL, env=alone, check=True)
            result = from_json(RunFolder(Path(folder)).result_path.read_bytes())
        with options.out.open("a", encoding="utf-8") as file:
            file.write(to_json(record(cell, result)) + "\n")


if __name__ == "__main__":
    main()
