"""Standard output that may go away: a run outlives its terminal, and a pipe that nobody reads."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


@contextmanager
def outlived() -> Iterator[None]:
    """While the block runs, standard output and error that cannot be written to end nothing.

    What was to be seen there is lost; the first time standard error says so, if it is still there.
    """
    _occupy()
    before = sys.stdout, sys.stderr
    stdout, stderr = (_Outlived(stream or io.StringIO()) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Open descriptors 0 to 2 if they are closed, or the next file would be one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one


class _Outlived:
    """A text stream whose descriptor is given to nobody once a write fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # What is still in the stream's buffer goes there too, when Python flushes it at its end.
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, self._stream.fileno())
        os.close(nobody)
        if self is sys.stdout and not isinstance(error, BrokenPipeError):
            reason = os.strerror(error.errno or 0)
            print(f"hypercrl: standard output: {reason}; going on without it", file=sys.stderr)
