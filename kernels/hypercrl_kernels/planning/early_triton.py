"""Launches before the one before them has ended: programmatic dependent launch.

Between two kernels of a CUDA graph lie 1 to 2 µs until the second one's programs are where they
run. From compute capability 9.0 on they may be placed while the first kernel is at work: there they
wait for its end (CUDA C++ programming guide, "Programmatic Dependent Launch").
"""

# pyright: reportGeneralTypeIssues=false

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait_for_predecessor(EARLY: tl.constexpr):
    """Before anything is read or written; from here on the next kernel may be placed."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@cache
def launches_early(device: torch.device) -> bool:
    """Whether kernels for this device are compiled and launched so."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
