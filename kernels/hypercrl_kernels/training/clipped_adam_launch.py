"""Launches of the end of a training step; imported only where Triton is used.

How the kernels are cut was measured on an H200.
"""

import triton
from torch import Tensor

from hypercrl_kernels.training.adam_launch import adam_constants
from hypercrl_kernels.training.adam_reference import AdamSettings
from hypercrl_kernels.training.clipped_adam_triton import clipped_adam_kernel, gradient_norms_kernel
from hypercrl_kernels.training.step_parts import Shares, Trained

_NORM_BLOCK = 4096
_NORM_WARPS = 16
_BLOCK = 512
_WARPS = 8


def launch_gradient_norms(
    trunk_gradient: Tensor,
    embedding_gradient: Tensor,
    shares: Shares,
    steps: tuple[Tensor, Tensor],
) -> Tensor:
    """`gradient_norms` by the kernel."""
    size = len(embedding_gradient)
    norms = trunk_gradient.new_empty(4)
    gradient_norms_kernel[(1,)](
        trunk_gradient,
        embedding_gradient,
        *shares,
        *steps,
        norms,
        len(shares.losses),
        len(shares.regularisers),
        len(shares.squares),
        len(shares.trunk),
        NUMEL=len(trunk_gradient),
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        BLOCK=_NORM_BLOCK,
        num_warps=_NORM_WARPS,  # pyright: ignore[reportCallIssue]
    )
    return norms


def launch_clipped_adam(
    theta: Trained, embedding: Trained, settings: AdamSettings, norms: Tensor, limit: float
) -> None:
    """`clipped_adam` by the kernel."""
    size = len(embedding.parameter)
    clipped_adam_kernel[(triton.cdiv(len(theta.parameter), _BLOCK) + 1,)](
        theta.parameter,
        theta.gradient,
        *theta.moments,
        embedding.parameter,
        embedding.gradient,
        *embedding.moments,
        norms,
        len(theta.parameter),
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        LIMIT=limit,
        BLOCK=_BLOCK,
        **adam_constants(settings),
        num_warps=_WARPS,  # pyright: ignore[reportCallIssue]
    )
