"""The squared error of a dynamics network on a batch, and its gradient by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl_kernels.training.step_parts import NetworkGradient, Scales

MOST_ROWS = 512
"""Rows of a batch beyond which torch's matrix products are the better way."""


@torch.no_grad()
def network_gradient(
    weights: Tensor,
    sizes: Sequence[int],
    obs: Tensor,
    action: Tensor,
    next_obs: Tensor,
    scales: Scales,
) -> NetworkGradient:
    """Of (1/O) ΣΣ (f(obs, action) − y)² with y the scaled change; f is a ReLU MLP of `sizes`.

    Triton kernels on CUDA, one a layer forward and one backward, with sums in a fixed order; torch
    operations elsewhere and for batches of more than `MOST_ROWS` rows.

    Args:
        weights: [P], weight [out, in] and bias [out] of one layer after another.
        obs, action, next_obs: [B, O], [B, A], [B, O]; rows may lie apart.
    """
    if weights.is_cuda and weights.dtype == torch.float32 and len(obs) <= MOST_ROWS:
        from hypercrl_kernels.training.network_gradient_launch import launch_network_gradient

        return launch_network_gradient(weights, tuple(sizes), obs, action, next_obs, scales)
    return network_gradient_reference(weights, sizes, obs, action, next_obs, scales)


def network_gradient_reference(
    weights: Tensor,
    sizes: Sequence[int],
    obs: Tensor,
    action: Tensor,
    next_obs: Tensor,
    scales: Scales,
) -> NetworkGradient:
    """`network_gradient` in torch operations, one share."""
    h = (torch.cat([obs, action], -1) - scales.input_mean) / scales.input_scale
    inputs, layers = [h], []
    for fan_in, fan_out in itertools.pairwise(sizes):
        weight, bias, weights = weights.tensor_split([fan_in * fan_out, (fan_in + 1) * fan_out])
        layers.append(weight.view(fan_out, fan_in))
        h = F.linear(inputs[-1], layers[-1], bias)
        inputs.append(h.relu())
    target = (next_obs - obs - scales.target_mean) / scales.target_scale
    error = h - target
    slope, found = 2 / sizes[-1] * error, []
    for weight, x in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        found += [slope.sum(0), (slope.mT @ x).flatten()]
        slope = (slope @ weight) * (x > 0)
    loss = error.square().sum() / (sizes[-1] * len(obs))
    return NetworkGradient(loss[None], torch.cat(found[::-1])[None])
