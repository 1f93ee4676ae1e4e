"""Messages between two processes of this program on one machine."""

from __future__ import annotations

import pickle
import select
import time
from multiprocessing.connection import Connection
from typing import Any

WATCHED = 0.005
"""Seconds for which a process with a core of its own looks out for a message before it sleeps: to
be woken may take as long as a step of a simulator."""


class Channel:
    """Both ends are the same program; nothing that comes from a file is unpickled.

    Args:
        descriptor: of a socket, which is the channel's from now on.
        watches: look out for a message before going to sleep.
    """

    def __init__(self, descriptor: int, watches: bool) -> None:
        self._connection = Connection(descriptor)
        self._watched = WATCHED if watches else 0.0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def send(self, message: Any) -> None:
        """
        Raises:
            OSError: the other end is closed.
        """
        # Not Connection.send: torch teaches it to share memory, by files of another process.
        self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        until = time.perf_counter() + self._watched
        while time.perf_counter() < until and not self._poll.poll(0):
            pass
        return pickle.loads(self._connection.recv_bytes())

    def close(self) -> None:
        """Let the other end know that nothing more will come."""
        self._connection.close()
