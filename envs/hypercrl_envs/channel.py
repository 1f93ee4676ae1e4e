"""Messages between two processes of this program on one machine."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import select
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hypercrl_envs.mailbox import SIZE, SLOTS, Mailbox

UNDER_WAY = SLOTS - 1
"""Messages in one direction that have not been answered yet, at most."""

WATCHED = 0.005
"""Seconds for which a process with a core of its own looks out for a message before it sleeps: to
be woken may take as long as a step of a simulator."""

NAP = 0.1
"""Seconds after which a sleeper looks by itself, should nobody have seen it go to sleep."""


def shared_memory() -> int | None:
    """A descriptor of memory for a channel; None where the system has none to give."""
    with suppress(AttributeError, OSError):
        descriptor = os.memfd_create("hypercrl")
        os.ftruncate(descriptor, SIZE)
        return descriptor
    return None


class Channel:
    """Both ends are the same program; nothing that comes from a file is unpickled.

    Without memory that both ends share, messages go through the socket, and who waits for one
    sleeps. With it they are left there, and the socket is for what is too long and to be woken by.

    Args:
        descriptor: of a socket, which is the channel's from now on.
        memory: a descriptor of `shared_memory`, which the other end has too; None: there is none.
        end: 0 or 1, one at each.
    """

    def __init__(self, descriptor: int, memory: int | None = None, end: int = 0) -> None:
        self._connection = Connection(descriptor)
        self._boxes: tuple[Mailbox, Mailbox] | None = None
        if memory is not None:
            shared = mmap.mmap(memory, SIZE)
            os.close(memory)
            self._boxes = Mailbox(shared, end), Mailbox(shared, 1 - end)
        self._sent = self._received = 0
        self._long: deque[bytes] = deque()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def send(self, message: Any) -> None:
        """
        At most `UNDER_WAY` messages may be without an answer.

        Raises:
            OSError: the other end is closed, as far as that was noticed.
        """
        packed = _packed(message)
        if self._boxes is None:
            self._connection.send_bytes(packed)
            return
        self._sent += 1
        box = self._boxes[0]
        if not box.put(self._sent, packed):
            self._connection.send_bytes(packed)
        if box.sleeping:
            self._connection.send_bytes(b"")

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        if self._boxes is None:
            return pickle.loads(self._connection.recv_bytes())
        self._received += 1
        return pickle.loads(self._await(self._boxes[1], self._received))

    def close(self) -> None:
        """Let the other end know that nothing more will come."""
        self._connection.close()

    def _await(self, box: Mailbox, number: int) -> bytes:
        until = time.perf_counter() + WATCHED
        while not box.there(number) and time.perf_counter() < until:
            pass
        while (message := box.take(number)) is None:
            box.sleeping = True
            if not box.there(number) and self._poll.poll(1e3 * NAP):
                self._listen()
            box.sleeping = False
        while not message and not self._long:
            self._listen()
        return message or self._long.popleft()

    def _listen(self) -> None:
        """Take what comes through the socket: a call to wake up, which is empty, or a message."""
        if heard := self._connection.recv_bytes():
            self._long.append(heard)


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
