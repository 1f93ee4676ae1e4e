"""TensorBoard: event files in the run folder, written as records come."""

from pathlib import Path
from typing import Any

from hypercrl.runs.events import EventFile
from hypercrl.runs.trackers import scalars


class TensorBoard:
    """Events are a copy of metrics.jsonl, written anew when a run is resumed.

    Of several files TensorBoard decides by the clock in their names which comes first, so a killed
    run's would stay beside the new ones. A TensorBoard that is open follows. The wall time of what
    came before is that of the resumption.
    """

    def __init__(self, folder: Path) -> None:
        self._events = EventFile(folder)

    def show(self, record: dict[str, Any]) -> None:
        """Add one record."""
        for name, value in scalars(**record).items():
            self._events.add_scalar(name, value, record["env_steps"])

    def flush(self) -> None:
        """Hand everything to the system."""
        self._events.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._events.close()
