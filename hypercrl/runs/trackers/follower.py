"""Brings a tracker up to a run's last checkpoint, across kills and resumptions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypercrl.base.strict_json import write_json
from hypercrl.runs.trackers import TrackedRun, open_tracker


class Follower:
    """One tracker, and how many records it was sent.

    Records are sent once a checkpoint holds them, and that they are is noted before: a resumed run
    sends nothing twice, and what a kill in between, or a tracker that fails, leaves out is a gap
    there and not in metrics.jsonl.

    Args:
        name: of `LOGGERS`.
        path: the run's folder; trackers/NAME.json in it has the tracker's run and the count.
        config: of the run.
        kept: records that the run has already.

    Raises:
        UserError: the tracker has no run for it.
    """

    def __init__(
        self, name: str, path: Path, config: dict[str, Any], kept: list[dict[str, Any]]
    ) -> None:
        self.name = name
        self._file = path / "trackers" / f"{name}.json"
        stored = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._identity: dict[str, str] = stored.get("identity", {})
        self._tracker = open_tracker(name, TrackedRun(path, config, self._identity))
        self._sent: int = 0 if self._tracker.anew else stored.get("sent", 0)
        self._waiting = kept[self._sent :]
        self._known = max(0, self._sent - len(kept))
        self._note()

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record for the next checkpoint.

        Where the run was resumed from before the last one, the tracker has it already.
        """
        if self._known:
            self._known -= 1
        else:
            self._waiting.append(record)

    def send(self) -> None:
        """The records so far are in a checkpoint."""
        if not self._waiting:
            return
        records, self._waiting = self._waiting, []
        self._sent += len(records)
        self._note()
        self._attempt(lambda: self._tracker.send(records), f"{len(records)} records are not there")

    def close(self, finished: bool) -> None:
        """Let go of the tracker."""
        self._attempt(lambda: self._tracker.close(finished), "its run is left open")

    def _note(self) -> None:
        write_json(self._file, {"identity": self._identity, "sent": self._sent})

    def _attempt(self, call: Callable[[], None], loss: str) -> None:
        """A tracker that fails is no reason to end a training."""
        try:
            call()
        except Exception as error:
            what = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(
                f"hypercrl: {self.name} failed ({what}): {loss}, but in metrics.jsonl",
                file=sys.stderr,
            )
