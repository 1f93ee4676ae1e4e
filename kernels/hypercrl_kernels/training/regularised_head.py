"""The last layer of a hypernetwork under a regulariser that looks one step of Adam ahead."""

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.regularised_head_chunked import regularised_head_chunked
from hypercrl_kernels.training.regularised_head_reference import (
    HeadGradients,
    regularised_head_reference,
)
from hypercrl_kernels.training.trunk import fits


@torch.no_grad()
def regularised_head(
    head: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    written_gradient: Tensor,
    hidden: Tensor,
    old: Tensor,
    targets: Tensor,
    tasks: Tensor | None,
    strength: float,
) -> HeadGradients:
    """Gradient of a task loss plus strength · R on the layer that writes P numbers.

    R = (1/T) Σ_j ‖W* _j − (W + ΔW) x_j − (b + Δb)‖² with the step (ΔW, Δb) that Adam would take on
    the task loss alone, which counts as a constant (von Oswald et al. 2020, equation 2); with no
    old task it is 0. The matrices are read once for up to 128 tasks, and the T P numbers
    written for them are never stored.

    One Triton kernel on CUDA for a layer that fits; torch operations elsewhere, on a CPU chunk by
    chunk. The kernel gives no number, and not a wrong one, where a weight or a distance from a
    target is beyond 255 or a number of `old` beyond 4094.

    Args:
        head: [P w + P], W [P, w] row by row, then b [P].
        gradient: [P w + P], written: that of the task loss and of strength · R together.
        moments, settings: of the Adam that trains the head.
        written_gradient: [P], of the task loss with respect to what the head writes; or [M, P]
            of M members of an ensemble.
        hidden: [w], the head's input for the present task, or [M, w].
        old: [T, w], its inputs x_j for old tasks.
        targets: [all old tasks, P]; tasks: [T] int64, rows of it that W*_j are, None for all.
        strength: factor of R.
    """
    compute = regularised_head_reference if head.is_cuda else regularised_head_chunked
    if fits(head, old.shape[1]):
        from hypercrl_kernels.training.regularised_head_launch import (
            launch_regularised_head as compute,
        )
    return compute(
        head, gradient, moments, settings, written_gradient, hidden, old, targets, tasks, strength
    )
