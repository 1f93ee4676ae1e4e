"""Prediction errors right after each task's own training, of methods and of changes of some rank.

    python scripts/low_rank_errors.py FOLDER [FOLDER ...] [--out FILE.json]

Reads what `hypercrl bench` left in these folders; `scripts/reproduce.sh low_rank` makes them. The
first task of `lora` is learned by a whole network, so that means leave it out.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from hypercrl.base.strict_json import from_json, write_json
from hypercrl.metrics import just_trained


def read(folder: Path) -> dict[str, Any]:
    """One run: its sequence, method, rank, seed and the error on task i right after it."""
    config = OmegaConf.load(folder / "config.yaml")
    errors = just_trained(from_json((folder / "result.json").read_bytes())["prediction_error"])
    return {
        "sequence": config.env.name,
        "method": config.method.name,
        "rank": config.method.get("rank"),
        "seed": config.seed,
        "errors": [float(f"{error:.4g}") for error in errors],
    }


def table(runs: list[dict[str, Any]]) -> Table:
    """A row a sequence and method: means over seeds, and over `single` of the same seed."""
    single = {
        (r["sequence"], r["seed"]): float(np.mean(r["errors"][1:]))
        for r in runs
        if r["method"] == "single"
    }
    groups = defaultdict(list)
    for run in runs:
        groups[run["sequence"], run["method"], run["rank"] or 0].append(run)
    shown = Table(
        "sequence", "method", "rank", "seeds", "by task", "mean of 2 ...", "over single's"
    )
    for (sequence, method, rank), own in sorted(groups.items()):
        errors = np.array([run["errors"] for run in own])
        ratios = [
            float(np.mean(run["errors"][1:])) / single[sequence, run["seed"]]
            for run in own
            if (sequence, run["seed"]) in single
        ]
        shown.add_row(
            sequence,
            method,
            str(rank or "-"),
            str(len(own)),
            " ".join(f"{error:.3g}" for error in errors.mean(0)),
            f"{errors[:, 1:].mean():.3g}",
            " ".join(f"{ratio:.2f}" for ratio in ratios),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="What low rank costs in prediction error.")
    parser.add_argument("folders", nargs="+", type=Path, help="`out` of hypercrl bench")
    parser.add_argument("--out", type=Path, help="what was read, as JSON")
    given = parser.parse_args()
    ended = sorted(f.parent for g in given.folders for f in g.glob("cells/*/result.json"))
    runs = [read(folder) for folder in ended]
    if given.out:
        write_json(given.out, runs)
    Console(width=160).print(table(runs))


if __name__ == "__main__":
    main()
