"""How much of the machine's processors there is for this process."""

import os
import sys
from contextlib import suppress
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time that a container is given in a period, and that period."""


def cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no such file: no quota; "max": none is set
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(allowed, -(-quota // period)))
    return allowed
