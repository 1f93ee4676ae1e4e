"""How the scan kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.operators import blocks, power_of_2
from hypercrl_kernels.memory.prepared import PreparedKernel
from hypercrl_kernels.memory.scan.triton import scan_back_kernel, scan_kernel


@lru_cache(KEPT)
def _prepare(
    length: int,
    channels: int,
    segments: int,
    starts: bool,
    varlen: bool,
    back: bool,
    ends: bool = False,
) -> PreparedKernel:
    """One pass; a warp a program, as sequences are many and tiles small."""
    block = min(32, power_of_2(channels))
    grid = (blocks(channels, block), segments)
    constants = {"length": length, "CHANNELS": channels, "BLOCK": block, "TILE": 16}
    constants |= {"STARTS": starts, "VARLEN": varlen} | ({"ENDS": ends} if back else {})
    return PreparedKernel(
        scan_back_kernel if back else scan_kernel, grid, constants, {"num_warps": 1}
    )


def _segments(x: Tensor, cu_seqlens: Tensor | None) -> int:
    return x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


def final_state(x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Unwritten."""
    return x.new_empty((_segments(x, cu_seqlens), *x.shape[2:]), dtype=torch.float32)


def _channels(x: Tensor) -> tuple[int, int]:
    """Steps, and numbers of one."""
    _, length, heads, width = x.shape
    return length, heads * width


def launch_forward(x, log_decay, initial, cu_seqlens):
    """h and the final state."""
    h, final = torch.empty_like(x), final_state(x, cu_seqlens)
    options = (final.shape[0], initial is not None, cu_seqlens is not None)
    kernel = _prepare(*_channels(x), *options, back=False)
    kernel((x, log_decay, initial, cu_seqlens, h, final))
    return h, final


def launch_backward(h, log_decay, initial, cu_seqlens, d_h, d_final):
    """Gradients of x, log_decay and, where there was one, the initial state."""
    gradients = [None if x is None else torch.empty_like(x) for x in (h, log_decay, initial)]
    options = (_segments(h, cu_seqlens), initial is not None, cu_seqlens is not None)
    kernel = _prepare(*_channels(h), *options, back=True, ends=d_final is not None)
    kernel((h, log_decay, initial, d_h, d_final, cu_seqlens, *gradients))
    return tuple(gradients)
