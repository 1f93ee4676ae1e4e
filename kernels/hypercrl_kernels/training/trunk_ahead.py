"""A hypernetwork's trunk between the present task and the old ones: Adam's step ahead, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings, adam_reference
from hypercrl_kernels.training.step_parts import TrunkAhead
from hypercrl_kernels.training.trunk import Trunk, trunk_gradients, trunk_outputs


@torch.no_grad()
def trunk_ahead(
    flat: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    embedding: Tensor,
    outputs: Tensor,
    products: Tensor,
    old: Tensor,
    trunk: Trunk,
) -> TrunkAhead:
    """Back-propagate the task loss through the trunk, take Adam's step, go forward for old tasks.

    One Triton kernel on CUDA for one embedding and a trunk that fits, torch operations elsewhere.

    Args:
        flat: the trunk's parameters.
        gradient: as `flat`, written: that of the task loss.
        moments, settings: of the Adam that trains it.
        embedding: [E] of the present task, or [M, E]; outputs: of all layers for it, flat.
        products: [n, width], whose sum is the loss's gradient of the last layer's outputs; or
            [M, width], of each embedding's.
        old: [T, E], embeddings of old tasks.
    """
    one = embedding.dim() == 1
    if one and trunk.fits(flat):
        from hypercrl_kernels.training.trunk_launch import launch_trunk_ahead as compute

        return compute(flat, gradient, moments, settings, embedding, outputs, products, old, trunk)
    slope = products.sum(0, keepdim=True) if one else products
    found, below = trunk_gradients(flat, embedding.view(len(slope), -1), outputs, slope, trunk)
    gradient.copy_(found)
    ahead = adam_reference(flat, gradient, moments, settings)[0]
    return TrunkAhead(ahead, trunk_outputs(ahead, old, trunk), below.view_as(embedding))


@torch.no_grad()
def trunk_back(flat: Tensor, x: Tensor, outputs: Tensor, slopes: Tensor, trunk: Trunk) -> Tensor:
    """[m, trunk.numel]: what the gradient of the trunk's parameters is the sum of.

    One Triton kernel on CUDA for a trunk that fits, torch operations elsewhere.

    Args:
        flat: the trunk's parameters; x: [T, E], its inputs; outputs: of all layers for them, flat.
        slopes: [n, T, width], whose sum is the gradient of the last layer's outputs.
    """
    if trunk.fits(flat):
        from hypercrl_kernels.training.trunk_launch import launch_trunk_back

        return launch_trunk_back(flat, x, outputs, slopes, trunk)
    if not len(x):
        return torch.zeros_like(flat)[None]
    return trunk_gradients(flat, x, outputs, slopes.sum(0), trunk)[0][None]
