"""The pace of a real robot: ticks of a clock, deadlines of plans, and who answered in time."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from hypercrl.base.counted import counted

RATES = (10, 20, 50, 100)
"""Control rates in Hz that latencies are held against."""


class Pacer:
    """Lets time pass until each tick of a clock that runs at `rate` Hz, from its first tick on."""

    def __init__(self, rate: float) -> None:
        self._period = 1 / rate
        self._next: float | None = None

    def wait(self) -> None:
        """Return at the next tick; at once when it has passed, and ticks go on from then."""
        now = time.perf_counter()
        if self._next is not None and self._next > now:
            time.sleep(self._next - now)
            now = self._next
        self._next = now + self._period


class Deadline:
    """Says between the iterations of a search whether the next one would end too late.

    The next one is taken to last as long as the longest one so far, so what is stopped by it ends
    in time unless an iteration takes longer than all before it. The first is not asked about.

    Args:
        end: when the search should be over, by `time.perf_counter`.
        wait: for the device, before a look at the clock.

    Attributes:
        iterations: how many the search has begun.
    """

    def __init__(self, end: float, wait: Callable[[], None] | None = None) -> None:
        self.iterations = 1
        self._end = end
        self._wait = wait
        self._last = time.perf_counter()
        self._longest = 0.0

    def __call__(self) -> bool:
        if self._wait is not None:
            self._wait()
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        over = now + self._longest > self._end
        self.iterations += not over
        return over


def deadlines_met(seconds: Sequence[float]) -> dict[int, int]:
    """Per control rate, how many of these latencies are within its period."""
    return {rate: sum(s <= 1 / rate for s in seconds) for rate in RATES}


def latency_report(seconds: Sequence[float]) -> str:
    """One line about the latencies, in seconds, of at least one plan."""
    met = ", ".join(
        f"{rate} Hz {count} ({count / len(seconds):.0%})"
        for rate, count in deadlines_met(seconds).items()
    )
    median, late = 1e3 * np.percentile(seconds, [50, 99])
    return (
        f"deadlines met by {counted(len(seconds), 'plan')}: {met}; "
        f"median {median:.2f} ms, 99 % within {late:.2f} ms, all within {1e3 * max(seconds):.2f} ms"
    )
