"""Messages between two processes of this program on one machine."""

from __future__ import annotations

import io
import pickle
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


class Channel:
    """Both ends are the same program; nothing that comes from a file is unpickled.

    Who waits for a message sleeps. Looking out for it, be it at the socket or in shared memory, was
    tried: sixteen processes and the one that plans for them then share sixteen cores all the time,
    and a round of an evaluation takes twice as long (docs/results/whole_runs.md).

    Args:
        descriptor: of a socket, which is the channel's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)

    def send(self, message: Any) -> None:
        """
        Raises:
            OSError: the other end is closed.
        """
        self._connection.send_bytes(_packed(message))

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        return pickle.loads(self._connection.recv_bytes())

    def close(self) -> None:
        """Let the other end know that nothing more will come."""
        self._connection.close()


class _Pickler(pickle.Pickler):
    """Arrays of numbers are packed as their bytes, in half the time that numpy takes."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.dtype.kind in "fiub" and obj.flags.c_contiguous:
            return np.ndarray, (obj.shape, obj.dtype.str, bytearray(obj.tobytes()))
        return NotImplemented


def _packed(message: Any) -> bytes:
    # Not by the pickler of Connection.send: torch teaches it to share memory, by files of another
    # process.
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    return buffer.getvalue()
