"""How the scan kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.memory.operators import blocks, power_of_2
from hypercrl_kernels.memory.prepared import KEPT, PreparedKernel
from hypercrl_kernels.memory.scan.triton import scan_back_kernel, scan_kernel


@lru_cache(KEPT)
def _prepare(
    length: int, channels: int, segments: int, varlen: bool, back: bool, ends: bool
) -> PreparedKernel:
    """One pass; a warp a program, as sequences are many and tiles small."""
    block = min(32, power_of_2(channels))
    grid = (blocks(channels, block), segments)
    constants = {"length": length, "CHANNELS": channels, "BLOCK": block, "TILE": 16}
    constants |= {"VARLEN": varlen} | ({"ENDS": ends} if back else {})
    return PreparedKernel(
        scan_back_kernel if back else scan_kernel, grid, constants, {"num_warps": 1}
    )


def _kernel(
    x: Tensor, initial: Tensor, cu_seqlens: Tensor | None, back: bool, ends: bool = False
) -> PreparedKernel:
    _, length, heads, width = x.shape
    segments, varlen = initial.shape[0], cu_seqlens is not None
    return _prepare(length, heads * width, segments, varlen, back, ends)


def launch_forward(x, log_decay, initial, cu_seqlens):
    """h and the final state."""
    h, final = torch.empty_like(x), torch.empty_like(initial)
    kernel = _kernel(x, initial, cu_seqlens, back=False)
    kernel((x, log_decay, initial, cu_seqlens, h, final))
    return h, final


def launch_backward(h, log_decay, initial, cu_seqlens, d_h, d_final):
    """Gradients of x, log_decay and the initial state."""
    gradients = [torch.empty_like(x) for x in (h, log_decay, initial)]
    kernel = _kernel(h, initial, cu_seqlens, back=True, ends=d_final is not None)
    kernel((h, log_decay, initial, d_h, d_final, cu_seqlens, *gradients))
    return tuple(gradients)
