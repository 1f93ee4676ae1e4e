"""Signals that end a command: in order, saved where it trains, and saying how it goes on."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

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
def answered() -> Iterator[None]:
    """A signal that ends the block ends the process with one line and an exit code.

    So it does where another exception hides it: code that OmegaConf, for one, calls in a `finally`
    may fail as what comes before it was broken off.

    Raises:
        SystemExit: SIGINT or SIGTERM came.
    """
    try:
        with termination_interrupts():
            yield
    except (KeyboardInterrupt, Exception) as error:
        if (interrupt := _interrupt_behind(error)) is None:
            raise
        with suppress(OSError):  # the terminal may be what has gone
            print(f"\nhypercrl: {told(interrupt)}", file=sys.stderr)
        sys.exit(exit_code(interrupt))


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an exception is, or was raised from or amid; None: there was none."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Raise `Interrupted` in the block when SIGINT or SIGTERM comes, but not amid an import.

    What a signal raises while torch or MuJoCo is imported may be raised inside their C++, which
    aborts, or makes an ImportError of it. It waits until the import, or the block, is over; a
    second one does not. Only the main thread can see to signals, and one that the process ignores
    stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
        handler.catch_up()
    finally:
        handler.forget()
        for number, earlier in before.items():
            signal.signal(number, earlier)


class _Handler:
    """Raises what a signal means, or sends it once more a little later."""

    RETRY_SECONDS = 0.05

    def __init__(self) -> None:
        self._waits: threading.Timer | None = None
        self._number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waits is not None or not _imports(frame):
            self._raise(number)
        self._number = number
        self._waits = threading.Timer(self.RETRY_SECONDS, self._send_again, [number])
        self._waits.daemon = True
        self._waits.start()

    def _send_again(self, number: int) -> None:
        if self._waits is not None:  # or it was forgotten meanwhile
            self._waits = None
            # To the main thread, which may wait for something by then and has to be woken.
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def catch_up(self) -> None:
        """A signal that waits does so no more."""
        if self._waits is not None:
            self._raise(self._number)

    def _raise(self, number: int) -> NoReturn:
        self.forget()
        raise Interrupted(number, _MEANING[number])

    def forget(self) -> None:
        """A signal that waits is not sent any more."""
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


_MEANING: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported by what the frame was called by."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


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
