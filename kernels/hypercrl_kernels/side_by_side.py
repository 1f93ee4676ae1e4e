"""Independent pieces of work on a CPU's cores, each a thread of its own for torch.

Torch spreads one operation over its threads, which wait for one another at the end of each. What is
small, or bound by memory, gains little from that; pieces that meet only at their end gain all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")


class _Cores:
    """The threads beside the present one, which are started when they are first needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with none: a forked process has but one thread."""
        self.given = 1
        self._pool: ThreadPoolExecutor | None = None
        self._others = 0

    def pool(self) -> ThreadPoolExecutor:
        if self._pool is None or self._others < self.given - 1:
            self._others = self.given - 1
            # The number of threads is one of each thread's own.
            self._pool = ThreadPoolExecutor(
                self._others, "side by side", torch.set_num_threads, (1,)
            )
        return self._pool


_CORES = _Cores()
os.register_at_fork(after_in_child=_CORES.forget)


@contextmanager
def cores_apart() -> Iterator[None]:
    """In here torch has one thread, and `side_by_side` as many as torch had."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    before, _CORES.given = _CORES.given, threads
    try:
        yield
    finally:
        _CORES.given = before
        torch.set_num_threads(threads)


def cores() -> int:
    """Calls that `side_by_side` makes at a time."""
    return _CORES.given


def side_by_side(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """What these calls return, in order; inside `cores_apart` as many at a time as there are cores.

    Which thread makes a call is of no account to its result. Calls neither record gradients nor
    depend on one another.

    Raises:
        Exception: what the first of the calls that failed has raised.
    """
    if _CORES.given == 1 or len(calls) < 2:
        return [call() for call in calls]
    pool, count = _CORES.pool(), _CORES.given
    shares = [range(first, len(calls), count) for first in range(min(count, len(calls)))]
    others = [pool.submit(_each, calls, share) for share in shares[1:]]
    found = [_each(calls, shares[0]), *(other.result() for other in others)]
    return [found[number % len(shares)][number // len(shares)] for number in range(len(calls))]


def _each(calls: Sequence[Callable[[], Result]], share: Sequence[int]) -> list[Result]:
    with torch.no_grad():
        return [calls[number]() for number in share]
