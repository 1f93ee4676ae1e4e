"""MLflow: a run of experiment `hypercrl`, on MLFLOW_TRACKING_URI or in mlflow.db of this folder.

Resumed, it goes on under the same run id at the same address.
"""

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypercrl.runs.trackers import TrackedRun, flat, scalars

OFFLINE = "Without a server: leave MLFLOW_TRACKING_URI unset, for a database in this folder."
MOST_AT_ONCE = 1000
"""Metrics that one call of the API takes."""
MOST_PARAMETERS = 100
LONGEST = 500
"""Letters of a parameter that every kind of store keeps."""


def begin(run: TrackedRun) -> "MLflow":
    """Begin a run, or go on with it."""
    return MLflow(run)


class MLflow:
    """Steps are environment steps, and a point's time is that at which it was sent."""

    anew = False

    def __init__(self, run: TrackedRun) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        identity = run.identity
        here = f"sqlite:///{Path('mlflow.db').resolve()}"
        identity.setdefault("uri", os.environ.get("MLFLOW_TRACKING_URI") or here)
        self._client = mlflow.MlflowClient(identity["uri"])
        if "run_id" in identity:
            self._client.update_run(identity["run_id"], status="RUNNING")
        else:
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "hypercrl"))
            begun = self._client.create_run(experiment, run_name=run.path.name)
            identity["run_id"] = begun.info.run_id
            texts = [
                self._entities.Param(key, text[:LONGEST]) for key, text in flat(run.config).items()
            ]
            for first in range(0, len(texts), MOST_PARAMETERS):
                part = texts[first : first + MOST_PARAMETERS]
                self._client.log_batch(identity["run_id"], params=part)
        self._id = identity["run_id"]

    def _experiment(self, name: str) -> str:
        there = self._client.get_experiment_by_name(name)
        return there.experiment_id if there else self._client.create_experiment(name)

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        now = round(1000 * time.time())
        metrics = [
            self._entities.Metric(name, value, now, record["env_steps"])
            for record in records
            for name, value in scalars(**record).items()
        ]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[first : first + MOST_AT_ONCE])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
