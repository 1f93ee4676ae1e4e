"""Trackio: a run of project `hypercrl`, in a database of this machine (TRACKIO_DIR).

Resumed, it goes on under the same name, which has an id behind that of the folder: runs of one name
are one.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from hypercrl.runs.trackers import TrackedRun, flat, scalars

OFFLINE = "It needs no network: leave TRACKIO_SPACE_ID and TRACKIO_SERVER_URL unset."


def begin(run: TrackedRun) -> "Trackio":
    """Begin a run, or go on with it."""
    return Trackio(run)


class Trackio:
    """Steps are environment steps."""

    anew = False

    def __init__(self, run: TrackedRun) -> None:
        trackio: Any = importlib.import_module("trackio")

        run.identity.setdefault("name", f"{run.path.name}-{uuid4().hex[:8]}")
        self._finish_current = trackio.finish
        self._current = trackio.context_vars.current_run
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "hypercrl"),
            name=run.identity["name"],
            config=flat(run.config),
            resume="allow",
        )

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            self._run.log(scalars(**record), step=record["env_steps"])

    def close(self, finished: bool) -> None:  # noqa: ARG002
        # One that stays the current run is finished anew, in the midst of the next or at the exit.
        if self._current.get() is self._run:
            self._finish_current()
        else:
            self._run.finish()
