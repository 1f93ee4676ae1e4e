"""How a multiprocessor's memory is divided between shared memory and the L1 cache.

They are one memory of 256 kB on Hopper. Triton prefers shared memory for every kernel that takes
more than 48 kB of it, which leaves 28 kB of cache; otherwise the driver chooses.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

_CARVEOUT = 9  # CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, in percent
_RESERVED = 1024  # bytes of shared memory that every block has beside its own
_done: set[int] = set()


def leave_to_cache(compiled: Any, device: torch.device) -> None:
    """Ask for no more shared memory than one program of this compiled kernel takes.

    A hint, by the driver's `cuFuncSetAttribute`; once for every kernel, and on CUDA alone.
    """
    function = compiled.function
    if function in _done or torch.version.cuda is None:
        return
    _done.add(function)
    total = torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor
    percent = -(-100 * (compiled.metadata.shared + _RESERVED) // total)
    _driver().cuFuncSetAttribute(ctypes.c_void_p(function), _CARVEOUT, min(100, percent))


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")
