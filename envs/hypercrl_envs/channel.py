"""Messages between two processes of this program on one machine."""

from __future__ import annotations

import pickle
import socket
from typing import Any


class Channel:
    """Both ends are the same program; nothing that comes from a file is unpickled.

    Who waits for a message sleeps. Looking out for it, be it at the socket or in shared memory, was
    tried: sixteen processes and the one that plans for them then share sixteen cores all the time,
    and a round of an evaluation takes twice as long (docs/results/whole_runs.md).

    A message is its length, in eight bytes, and its pickle: one write, and most often one read.

    Args:
        descriptor: of a socket, which is the channel's from now on.

    Attributes:
        messages, bytes: that were sent or received so far.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._incoming = open(descriptor, "rb", _BUFFER, closefd=False)  # noqa: SIM115
        self.messages = self.bytes = 0

    def send(self, message: Any) -> None:
        """
        Raises:
            OSError: the other end is closed.
        """
        # Not by the pickler of Connection.send: torch teaches it to share memory, by files of
        # another process.
        packed = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._socket.sendall(len(packed).to_bytes(_HEAD, "little") + packed)
        self._count(_HEAD + len(packed))

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        length = int.from_bytes(self._read(_HEAD), "little")
        packed = self._read(length)
        self._count(_HEAD + length)
        return pickle.loads(packed)

    def close(self) -> None:
        """Let the other end know that nothing more will come."""
        self._incoming.close()
        self._socket.close()

    def _read(self, length: int) -> bytes:
        read = self._incoming.read(length)
        if len(read) < length:
            raise EOFError
        return read

    def _count(self, length: int) -> None:
        self.messages += 1
        self.bytes += length


_HEAD = 8
_BUFFER = 2**16
