"""When a run is to be saved apart from its schedule: on a signal that ends it, and by the clock."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAVE_SECONDS = 300.0
"""Most time between two checkpoints."""


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
