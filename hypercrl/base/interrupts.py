"""Signals that end a command: in order, saved where it trains, and saying how it goes on."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAVE_SECONDS = 300.0
"""Most time between two checkpoints."""


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


class Interruption:
    """Notes signals while a block runs, instead of dying of them.

    The block asks at points where all that it knows can be saved, so that it goes on from there. A
    signal that the process ignores, as under nohup, stays ignored. A second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._saved = time.monotonic()
        self._breaks_off = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While the block runs, signals are noted; in the main thread only, as they come there."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def due(self) -> bool:
        """Whether a checkpoint is due."""
        return self.number is not None or time.monotonic() - self._saved >= SAVE_SECONDS

    def saved(self) -> None:
        """A checkpoint has been written."""
        self._saved = time.monotonic()

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """While the block runs, which cannot be saved in its midst, a signal ends it at once.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        self._breaks_off = True
        try:
            yield
        finally:
            self._breaks_off = False

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        again = number == self.number == signal.SIGINT
        self.number = number
        if again or self._breaks_off:
            raise KeyboardInterrupt


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
