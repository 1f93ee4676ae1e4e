"""Weights & Biases: a run of project `hypercrl`, or of WANDB_PROJECT.

Resumed, it goes on under the same id. Offline (WANDB_MODE=offline) it then begins its files anew:
what a killed process logged is held back in its memory, and never reaches the disk. So do the files
of the run that it is a copy of go, which `wandb sync` would send once more.
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

STEP = "env_steps"


def begin(run: TrackedRun) -> "WeightsAndBiases":
    """Begin a run, or go on with it."""
    return WeightsAndBiases(run)


class WeightsAndBiases:
    """Each record is a row, drawn over its `env_steps`.

    Rows are numbered by wandb: of two with one number of ours it would drop the second, and the
    records of one environment step may come with two checkpoints.
    """

    def __init__(self, run: TrackedRun) -> None:
        wandb: Any = importlib.import_module("wandb")

        # Its service, which writes the files, stays in the folder that its first run was begun in.
        folder = run.path.resolve()
        run.identity.setdefault("id", uuid4().hex[:8])
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "hypercrl"),
            id=run.identity["id"],
            name=run.path.name,
            dir=str(folder),
            config=run.config,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        self.anew = bool(self._run.offline)
        if self.anew:
            for files in (folder / "wandb").glob("offline-run-*"):  # of others: this is a copy
                if files != Path(self._run.dir).resolve().parent:
                    shutil.rmtree(files)

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            self._run.log({STEP: record["env_steps"], **scalars(**record)})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
