"""TensorBoard: a file of events in the run folder, written as records come.

`torch.utils.tensorboard` writes in a thread of its own, which on a full disk dies with a traceback
and says so to nobody.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from hypercrl.runs.trackers import scalars

# Protocol buffers make their classes as they are imported.
Event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
Summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]

NAME = "events.out.tfevents."
"""How the names of its files begin."""


class TensorBoard:
    """Events are a copy of metrics.jsonl, written anew when a run is resumed.

    Of several files TensorBoard decides by the clock in their names which comes first, so a killed
    run's would stay beside the new ones. A TensorBoard that is open follows. The wall time of what
    came before is that of the resumption.

    Args:
        folder: of the file, which takes the place of those that are there.

    Raises:
        OSError: here and in all functions, if it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{NAME}*"):
            old.unlink()
        name = f"{NAME}{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(folder / name, "wb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))

    def show(self, record: dict[str, Any]) -> None:
        """Add a point to the curve of each number of one record."""
        for tag, value in scalars(**record).items():
            point = Summary.Value(tag=tag, simple_value=value)
            self._write(Event(step=record["env_steps"], summary=Summary(value=[point])))

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush, and let go of the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
