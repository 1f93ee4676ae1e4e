"""Samples evaluated in threads of their own, each with operations of one thread.

torch cuts every operation among its threads, which meet at the end of each: a plan of hundreds of
operations of some tens of microseconds spends much of its time on meetings, and nearly all of it
where other work keeps one of the threads from a core. Samples need nothing of each other until all
their returns are known.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

LEAST_ROWS = 64
"""Samples of all robots that are worth a thread: products of fewer rows are slower by the row."""


def thread_count(rows: int) -> int:
    """How many of torch's threads `rows` samples are enough for."""
    return max(1, min(torch.get_num_threads(), rows // LEAST_ROWS))


def evaluate_in_threads(
    evaluate: Callable[[Tensor], Tensor], actions: Tensor, threads: int
) -> Tensor:
    """`evaluate(actions)`, with the samples cut into `threads` parts.

    Args:
        evaluate: from actions [B, K, H, A] to returns [B, K], each sample's of its own actions
            alone; it is called from several threads at once, and records no gradients.
        threads: 1 is a plain call.
    """
    if threads == 1:
        return evaluate(actions)
    parts = actions.tensor_split(min(threads, actions.shape[1]), dim=1)
    return torch.cat(list(_pool(threads).map(torch.no_grad()(evaluate), parts)), dim=1)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which torch has one."""
    all_there = threading.Barrier(threads + 1)
    of_caller = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question, or operation, sets it to the default
        torch.set_num_threads(1)
        all_there.wait()

    pool = ThreadPoolExecutor(threads, "planner", initializer=begin)
    for _ in range(threads):
        pool.submit(lambda: None)  # a thread begins with the first call that finds none idle
    all_there.wait()
    torch.set_num_threads(of_caller)  # which is the default: what was set last in any thread
    return pool
