"""The last layer of a hypernetwork under a regulariser that looks one step of Adam ahead."""

from typing import NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.training.adam import AdamMoments, AdamSettings, adam_reference

MOST_TASKS = 64
"""Old tasks whose numbers one program of the kernel holds at once."""


class HeadGradients(NamedTuple):
    """R [] and its gradient with respect to the old tasks' last hidden layer, [T, w]."""

    regulariser: Tensor
    old: Tensor


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
    the task loss alone, which counts as a constant (von Oswald et al. 2020, equation 2). The
    matrices are read once, and the T P numbers written for old tasks are never stored.

    One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        head: [P w + P], W [P, w] row by row, then b [P].
        gradient: [P w + P], written: that of the task loss and of strength · R together.
        moments, settings: of the Adam that trains the head.
        written_gradient: [P], of the task loss with respect to what the head writes.
        hidden: [w], the head's input for the present task.
        old: [T, w], its inputs x_j for old tasks, T up to `MOST_TASKS`.
        targets: [all old tasks, P]; tasks: [T] int64, rows of it that W*_j are, None for all.
        strength: factor of R.
    """
    compute = regularised_head_reference
    if head.device.type == "cuda":
        from hypercrl_kernels.training.launch import launch_regularised_head as compute
    return compute(
        head, gradient, moments, settings, written_gradient, hidden, old, targets, tasks, strength
    )


def regularised_head_reference(
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
    """`regularised_head` in torch operations."""
    size, width = len(written_gradient), len(hidden)
    torch.outer(written_gradient, hidden, out=gradient[: size * width].view(size, width))
    gradient[size * width :] = written_gradient
    ahead = adam_reference(head, gradient, moments, settings)[0]
    weight, bias = ahead[: size * width].view(size, width), ahead[size * width :]
    difference = torch.addmm(bias, old, weight.mT) - (targets if tasks is None else targets[tasks])
    slope = difference * (2 * strength / len(old))
    gradient[: size * width].view(size, width).addmm_(slope.mT, old)
    gradient[size * width :] += slope.sum(0)
    return HeadGradients(difference.square().sum() / len(old), slope @ weight)
