"""Brings a tracker up to a run's last checkpoint, across kills and resumptions."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypercrl.base.errors import first_line
from hypercrl.base.strict_json import write_json
from hypercrl.runs.trackers import TrackedRun, open_tracker


class Follower:
    """One tracker, and how many records it was sent.

    Records are sent once a checkpoint holds them, and that they are is noted before: a resumed run
    sends nothing twice, and what a kill in between, or a tracker that fails, leaves out is a gap
    there and not in metrics.jsonl.

    A folder that was copied is a run of its own, and begins one of the tracker's with all of its
    records; one that was moved goes on. It is a copy where the one that it was written in is still
    there and is of the same tracker's run.

    Args:
        name: of `LOGGERS`.
        path: the run's folder; trackers/NAME.json in it has the tracker's run, the count and the
            folder.
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
        stored = _stored(self._file)
        if original := _original(path, stored, self._file.name):
            print(
                f"hypercrl: {path} is a copy of {original}, and begins a run of its own in {name}.",
                file=sys.stderr,
            )
            stored = {}
        self._folder = path.resolve()
        self._identity: dict[str, str] = stored.get("identity", {})
        self._tracker = open_tracker(name, TrackedRun(path, config, self._identity))
        self._sent: int = 0 if self._tracker.anew else stored.get("sent", 0)
        self._waiting = kept[self._sent :]
        self._known = max(0, self._sent - len(kept))
        self._note()
        self.send()  # what is kept is in a checkpoint, and there may be no further one

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
        noted = {"identity": self._identity, "sent": self._sent, "folder": str(self._folder)}
        write_json(self._file, noted)

    def _attempt(self, call: Callable[[], None], loss: str) -> None:
        """A tracker that fails is no reason to end a training."""
        try:
            call()
        except Exception as error:
            print(
                f"hypercrl: {self.name} failed ({first_line(error)}): {loss}, but in metrics.jsonl",
                file=sys.stderr,
            )


def _stored(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


def _original(path: Path, stored: Mapping[str, Any], file: str) -> Path | None:
    """The folder that a run's was copied of; None: it is no copy, as far as can be seen here."""
    written_in = Path(stored.get("folder", path))
    try:
        if written_in.samefile(path):
            return None
        theirs = _stored(written_in / "trackers" / file)
    except (OSError, ValueError):  # it is not there, or on another machine
        return None
    return written_in if theirs.get("identity") == stored.get("identity") else None
