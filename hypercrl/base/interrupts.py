"""Ctrl-C and SIGTERM: both end a command in order, and say how to go on with it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A command ends because of a signal, in order.

    Args:
        number: of the signal.
        message: what a person is told of it, with how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Raise `Interrupted` in the block when SIGTERM comes; only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number, "ended by SIGTERM")


@contextmanager
def continued_with(command: str) -> Iterator[None]:
    """Name the command that goes on, should the block be interrupted."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"continue with: {command}")
        raise


def told(interrupt: KeyboardInterrupt) -> str:
    """What a person is told of it."""
    what = str(interrupt) or "interrupted"
    return "; ".join([what, *getattr(interrupt, "__notes__", ())])


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as a shell has it."""
    return 128 + getattr(interrupt, "number", signal.SIGINT)
