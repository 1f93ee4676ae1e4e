"""Messages between two processes arrive whole and in order."""

import socket
import threading
from contextlib import closing

import numpy as np
import pytest

from hypercrl_envs.channel import Channel


@pytest.fixture
def ends():
    channels = [Channel(end.detach()) for end in socket.socketpair()]
    with closing(channels[0]), closing(channels[1]):
        yield channels


def test_short_and_long_ones_come_in_order(ends):
    """Longer than the system keeps on the way, too."""
    rng = np.random.default_rng(0)
    messages = [rng.standard_normal(size) for size in (3, 0, 500, 10**6, 1)]
    one, other = ends

    def echo():
        for _ in messages:
            other.send(other.receive()["a message"])

    thread = threading.Thread(target=echo)
    thread.start()
    for message in messages:
        one.send({"a message": message})
        assert np.array_equal(one.receive(), message)
    thread.join()


def test_the_end_of_the_other_side_is_noticed_after_what_it_said(ends):
    one, other = ends
    other.send("last words")
    other.close()
    assert one.receive() == "last words"
    with pytest.raises((EOFError, OSError)):
        one.receive()


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
def test_arrays_are_what_they_were(array, ends):
    one, other = ends
    one.send([array, array])
    received, again = other.receive()
    assert received is again
    assert np.array_equal(received, array)
    assert (received.dtype, received.strides) == (array.dtype, array.strides)
    received[...] = received  # it can be written to
