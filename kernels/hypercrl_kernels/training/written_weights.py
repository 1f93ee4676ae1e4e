"""What a hypernetwork writes for one embedding, and how a gradient of it comes back."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.training.step_parts import WrittenGradient
from hypercrl_kernels.training.trunk import Trunk, trunk_outputs


@torch.no_grad()
def written_weights(theta: Tensor, embedding: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
    """h(e, θ): outputs of all trunk layers, flat, and the written weights [P].

    One Triton kernel on CUDA for a trunk that fits, torch operations elsewhere.

    Args:
        theta: [trunk.numel + P w + P], the trunk, then W [P, w] row by row, then b [P].
        embedding: [E].
    """
    if trunk.fits(theta):
        from hypercrl_kernels.training.launch import launch_written_weights

        return launch_written_weights(theta, embedding, trunk)
    outputs = trunk_outputs(theta[: trunk.numel], embedding[None], trunk)
    weight, bias = head_layers(theta[trunk.numel :], trunk.sizes[-1])
    return outputs, torch.addmv(bias, weight, outputs[-trunk.sizes[-1] :])


@torch.no_grad()
def written_gradient(
    head: Tensor, partials: Tensor, written: Tensor, width: int, l1: float
) -> WrittenGradient:
    """The gradient of a loss plus l1 · Σ|written| with respect to what is written.

    One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        head: [P w + P], W [P, w] row by row, then b [P].
        partials: [n, P], what the loss's gradient is the sum of.
        written: [P].
    """
    if head.device.type == "cuda":
        from hypercrl_kernels.training.launch import launch_written_gradient

        return launch_written_gradient(head, partials, written, width, l1)
    slope = partials.sum(0) + l1 * written.sign()
    weight, _ = head_layers(head, width)
    return WrittenGradient(slope, slope[None] @ weight)


def head_layers(head: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Matrix [P, width] and bias [P] of the last layer, as views."""
    size = len(head) // (width + 1)
    weight, bias = head.split([size * width, size])
    return weight.view(size, width), bias
