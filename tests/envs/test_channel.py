"""Messages between two processes arrive whole and in order, whichever way they take."""

import mmap
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from hypercrl_envs import channel
from hypercrl_envs.channel import UNDER_WAY, Channel, shared_memory
from hypercrl_envs.mailbox import ROOM, SIZE, SLOTS, Mailbox

WAYS = pytest.mark.parametrize("shared", [False, True], ids=["socket", "memory"])


def ends(shared):
    ours, theirs = socket.socketpair()
    memory = shared_memory() if shared else None
    other = None if memory is None else os.dup(memory)
    return Channel(ours.detach(), memory), Channel(theirs.detach(), other, end=1)


@pytest.fixture
def box():
    memory = mmap.mmap(-1, SIZE)
    return memory, Mailbox(memory, 0)


@WAYS
def test_short_and_long_ones_come_in_order(shared):
    rng = np.random.default_rng(0)
    sizes = [3, ROOM // 16, ROOM, 0, ROOM // 8 - 40, ROOM // 8 + 1, 1]
    messages = [rng.standard_normal(size) for size in (*sizes, *sizes, *sizes)]
    one, other = ends(shared)

    def echo():
        for message in messages:
            received = other.receive()["a message"]
            assert np.array_equal(received, message)
            other.send(received)

    with closing(one), closing(other), ThreadPoolExecutor(1) as pool:
        echoed = pool.submit(echo)
        for first in range(0, len(messages), UNDER_WAY):
            some = messages[first : first + UNDER_WAY]
            for message in some:
                one.send({"a message": message})
            for message in some:
                assert np.array_equal(one.receive(), message)
        echoed.result()


@WAYS
def test_who_sleeps_is_woken(shared, monkeypatch):
    """Long before it would look by itself."""
    monkeypatch.setattr(channel, "WATCHED", 0.001)
    monkeypatch.setattr(channel, "NAP", 60.0)
    one, other = ends(shared)

    def echo():
        for _ in range(6):
            other.send(other.receive())

    with closing(one), closing(other):
        thread = threading.Thread(target=echo)
        thread.start()
        started = time.monotonic()
        for size in (1, 2 * ROOM, 1, 1, 3 * ROOM, 1):
            time.sleep(0.05)
            one.send(np.ones(size))
            assert len(one.receive()) == size
        thread.join()
    assert time.monotonic() - started < 30


@WAYS
def test_the_end_of_the_other_side_is_noticed_after_what_it_said(shared):
    one, other = ends(shared)
    with closing(one):
        other.send("last words")
        other.close()
        assert one.receive() == "last words"
        with pytest.raises((EOFError, OSError)):
            one.receive()


@WAYS
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(12.0).reshape(3, 4).T,
        np.array(3, np.int16),
        np.array([True, False]),
        np.arange(3, dtype=">f8"),
        np.array(["text", None], object),
    ],
    ids=["rows", "columns", "scalar", "bool", "big-endian", "objects"],
)
def test_arrays_are_what_they_were(array, shared):
    one, other = ends(shared)
    with closing(one), closing(other):
        one.send([array, array])
        received, again = other.receive()
    assert received is again
    assert np.array_equal(received, array)
    assert (received.dtype, received.strides) == (array.dtype, array.strides)
    received[...] = received  # it can be written to


def test_what_is_half_written_is_not_there_yet(box):
    """However little of it another processor sees, and whatever lay there before."""
    memory, mailbox = box
    assert mailbox.take(1) is None
    mailbox.put(1, b"before" * 20)
    before = memory[:]
    number = 1 + SLOTS  # in the same slot
    mailbox.put(number, b"after" * 30)
    after = memory[:]
    changed = [place for place in range(SIZE) if before[place] != after[place]]
    for missing in changed:
        memory[:] = after
        memory[missing : missing + 1] = before[missing : missing + 1]
        assert mailbox.take(number) is None, missing
    memory[:] = after
    assert mailbox.take(number) == b"after" * 30
    assert mailbox.take(1) is None
    assert mailbox.there(number)


def test_without_memory_from_the_system_there_is_the_socket(monkeypatch):
    def refused(name):
        raise OSError("not permitted")

    monkeypatch.setattr(os, "memfd_create", refused)
    assert shared_memory() is None
    monkeypatch.delattr(os, "memfd_create")
    assert shared_memory() is None
