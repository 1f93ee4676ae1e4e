"""Weights & Biases: a run of project `hypercrl`, or of WANDB_PROJECT.

Resumed, it goes on under the same id. Offline (WANDB_MODE=offline) it then begins the files of that
id anew: what a killed process logged is held back in its memory, and never reaches the disk.
"""

import importlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from hypercrl.runs.trackers import TrackedRun, scalars

OFFLINE = "Without an account or a network: WANDB_MODE=offline hypercrl train ..."


def begin(run: TrackedRun) -> "WeightsAndBiases":
    """Begin a run, or go on with it."""
    return WeightsAndBiases(run)


class WeightsAndBiases:
    """Steps are environment steps; records of one step make one point."""

    def __init__(self, run: TrackedRun) -> None:
        wandb: Any = importlib.import_module("wandb")

        run.identity.setdefault("id", uuid4().hex[:8])
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "hypercrl"),
            id=run.identity["id"],
            name=run.path.name,
            dir=str(run.path),
            config=run.config,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )
        self.anew = bool(self._run.offline)
        if self.anew:
            for files in (run.path / "wandb").glob(f"offline-run-*-{self._run.id}"):
                if files != Path(self._run.dir).parent:
                    shutil.rmtree(files)

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        points: dict[int, dict[str, float]] = {}
        for record in records:
            points.setdefault(record["env_steps"], {}).update(scalars(**record))
        for step, values in points.items():
            # Without commit the last one is held back until a later step, and dies with a kill.
            self._run.log(values, step=step, commit=True)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
