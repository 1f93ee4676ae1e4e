"""TensorBoard's file of scalars, written as it comes.

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

# Protocol buffers make their classes as they are imported.
Event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
Summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]

NAME = "events.out.tfevents."
"""How the names of its files begin."""


class EventFile:
    """A new file of events in a folder, in the place of those that are there.

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

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """A point of the curve `tag`."""
        self._write(
            Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        )

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush, and let go of the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
