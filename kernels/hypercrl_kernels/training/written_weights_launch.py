"""Launches of written weights; imported only where Triton is used.

How the kernels are cut was measured on an H200.
"""

import triton
from torch import Tensor

from hypercrl_kernels.training.step_parts import WrittenGradient
from hypercrl_kernels.training.trunk import Trunk
from hypercrl_kernels.training.trunk_launch import trunk_constants
from hypercrl_kernels.training.written_weights_triton import (
    written_gradient_kernel,
    written_weights_kernel,
)

_BLOCK = 128
_WARPS = 4
_BACK_BLOCK = 128
_BACK_WARPS = 4


def launch_written_weights(theta: Tensor, embedding: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
    """`written_weights` by the kernel."""
    size = (len(theta) - trunk.numel) // (trunk.sizes[-1] + 1)
    outputs, written = theta.new_empty(trunk.outputs), theta.new_empty(size)
    written_weights_kernel[(triton.cdiv(size, _BLOCK),)](
        theta,
        theta[trunk.numel :],
        embedding,
        outputs,
        written,
        size,
        **trunk_constants(trunk),
        BLOCK=_BLOCK,
        num_warps=_WARPS,  # pyright: ignore[reportCallIssue]
    )
    return outputs, written


def launch_written_gradient(
    head: Tensor, partials: Tensor, written: Tensor, width: int, l1: float
) -> WrittenGradient:
    """`written_gradient` by the kernel."""
    parts, size = partials.shape
    programs = triton.cdiv(size, _BACK_BLOCK)
    found = WrittenGradient(head.new_empty(size), head.new_empty(programs, width))
    written_gradient_kernel[(programs,)](
        head,
        partials.contiguous(),
        written.contiguous(),
        *found,
        size,
        parts,
        l1,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        L1=l1 != 0,
        BLOCK=_BACK_BLOCK,
        num_warps=_BACK_WARPS,  # pyright: ignore[reportCallIssue]
    )
    return found
