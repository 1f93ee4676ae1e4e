"""Ctrl-C and SIGTERM: both end a command in order, and say how to go on with it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came: as Ctrl-C, so that whatever is open is closed and the cursor comes back."""


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Raise `Terminated` in the block when SIGTERM comes; only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


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
    what = "ended by SIGTERM" if isinstance(interrupt, Terminated) else "interrupted"
    return "; ".join([what, *getattr(interrupt, "__notes__", ())])


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as a shell has it."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
