"""What small runs of every method, memory, planner and kind of task come to, as hashes.

Two builds that behave alike have the same fingerprints, bit for bit, on one machine's CPU with one
number of threads. Taken before and after a change that is meant to change nothing:

    python scripts/fingerprint_runs.py take before.json
    python scripts/fingerprint_runs.py take after.json
    python scripts/fingerprint_runs.py compare before.json after.json
"""

import argparse
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import safetensors
import torch

from hypercrl.base.strict_json import write_json
from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS
from hypercrl.training.result import repeatable

SMALL = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "protocol.random_steps=40",
    "protocol.planned_steps=20",
    "protocol.update_every=10",
    "protocol.updates=6",
    "protocol.eval_every=10",
    "protocol.eval_episodes=1",
    "protocol.final_episodes=2",
    "protocol.checkpoint_every=1000",
    "protocol.num_tasks=2",
)


def runs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and settings of the runs."""
    for method in METHODS:
        yield f"method={method}", (f"method={method}",)
    for memory in MEMORIES:
        if memory != "none":
            yield f"memory={memory}", (f"memory={memory}", "memory.width=8", "context.windows=4")
    for planner in PLANNERS:
        yield f"planner={planner}", (f"planner={planner}",)
    for env in ("slide", "door", "cheetah", "push_frame", "gymnasium_learned"):
        steps = ("protocol.num_tasks=1", "planner.horizon=4", "planner.samples=20")
        yield f"env={env}", (f"env={env}", *steps)
    yield "inferred", ("task_id=inferred",)
    yield "probabilistic", ("dynamics.probabilistic=true", "planner.sampled=true")


def fingerprint(settings: tuple[str, ...]) -> dict[str, str]:
    """Hashes of the tensors of the last checkpoint and of result.json without its timings."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder) / "run"
        main(["train", *with_effect("train", [*SMALL, *settings]), f"run_dir={path}"])
        result = json.loads((path / "result.json").read_text())
        tensors = hashlib.sha256()
        checkpoint = path / "checkpoints/latest.safetensors"
        with safetensors.safe_open(checkpoint, framework="pt") as file:
            for key in sorted(file.keys(), key=int):
                tensors.update(file.get_tensor(key).reshape(-1).view(torch.uint8).numpy().data)
    return {"tensors": tensors.hexdigest(), "result": _hash(repeatable(result))}


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()


def take(path: Path) -> None:
    """Write the fingerprints of all runs; one that cannot be made has its error for one."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}
    for name, settings in runs():
        try:
            found[name] = fingerprint(settings)
        except SystemExit as error:
            found[name] = {"ended": str(error)}
        print(name, next(iter(found[name].values()))[:12], flush=True)
        write_json(path, found, indent=2)


def compare(before: Path, after: Path) -> None:
    """Name the runs that differ, and end with 1 if there are any."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    differ = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    print(f"{len(old)} and {len(new)} runs, {len(differ)} differ", *differ, sep="\n  ")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("take").add_argument("path", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "take":
        take(given.path)
    else:
        compare(given.before, given.after)
