"""What a hypernetwork writes for an embedding, or for a few, and how a gradient comes back."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from hypercrl_kernels.training.step_parts import WrittenGradient
from hypercrl_kernels.training.trunk import Trunk, fits, trunk_outputs


@torch.no_grad()
def written_weights(theta: Tensor, embedding: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
    """h(e, θ): outputs of all trunk layers, flat, and the written weights [P].

    Of M embeddings [M, P]. One Triton kernel on CUDA for one embedding and a trunk that fits, torch
    operations elsewhere.

    Args:
        theta: [trunk.numel + P w + P], the trunk, then W [P, w] row by row, then b [P].
        embedding: [E], or [M, E].
    """
    one = embedding.dim() == 1
    if one and trunk.fits(theta):
        from hypercrl_kernels.training.written_weights_launch import launch_written_weights

        return launch_written_weights(theta, embedding, trunk)
    outputs = trunk_outputs(theta[: trunk.numel], embedding[None] if one else embedding, trunk)
    weight, bias = head_layers(theta[trunk.numel :], trunk.sizes[-1])
    hidden = last_outputs(outputs, embedding, trunk)
    written = torch.addmv(bias, weight, hidden) if one else torch.addmm(bias, hidden, weight.mT)
    return outputs, written


def last_outputs(outputs: Tensor, embedding: Tensor, trunk: Trunk) -> Tensor:
    """[w], or [M, w] of M embeddings: those of the last layer, of all outputs, flat."""
    shape = (*embedding.shape[:-1], trunk.sizes[-1])
    return outputs[len(outputs) - prod(shape) :].view(shape)


@torch.no_grad()
def written_gradient(
    head: Tensor, partials: Tensor, written: Tensor, width: int, l1: float
) -> WrittenGradient:
    """The gradient of a loss plus l1 · Σ|written| with respect to what is written.

    One Triton kernel on CUDA for one network and a layer that fits, torch operations elsewhere.

    Args:
        head: [P w + P], W [P, w] row by row, then b [P].
        partials: [n, P], or [n, M, P], what the loss's gradient is the sum of.
        written: [P], or [M, P].
    """
    if written.dim() == 1 and fits(head, width):
        from hypercrl_kernels.training.written_weights_launch import launch_written_gradient

        return launch_written_gradient(head, partials, written, width, l1)
    slope = partials.sum(0)
    if l1:
        slope += l1 * written.sign()
    weight, _ = head_layers(head, width)
    return WrittenGradient(slope, (slope[None] if written.dim() == 1 else slope) @ weight)


def head_layers(head: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Matrix [P, width] and bias [P] of the last layer, as views."""
    size = len(head) // (width + 1)
    weight, bias = head.split([size * width, size])
    return weight.view(size, width), bias
