"""Launches of a dynamics network's layers; imported only where Triton is used."""

from itertools import pairwise

import torch
import triton
from torch import Tensor

from hypercrl_kernels.training.network_gradient_triton import (
    network_layer_back_kernel,
    network_layer_kernel,
)
from hypercrl_kernels.training.step_parts import NetworkGradient, Scales
from hypercrl_kernels.training.trunk import layer_offsets

_CUT = {"ROWS": 16, "COLUMNS": 16, "BLOCK": 32, "STAGES": 3}
_WARPS = 2
"""As measured on an H200."""


def launch_network_gradient(
    weights: Tensor,
    sizes: tuple[int, ...],
    obs: Tensor,
    action: Tensor,
    next_obs: Tensor,
    scales: Scales,
) -> NetworkGradient:
    """`network_gradient` by the kernels, one launch a layer forward and one backward."""
    weights, last = weights.contiguous(), len(sizes) - 2
    rows = triton.cdiv(len(obs), _CUT["ROWS"])
    columns = [triton.cdiv(size, _CUT["COLUMNS"]) for size in sizes]
    values = [weights.new_empty(len(obs), size) for size in sizes]
    slopes = [*map(torch.empty_like, values[:-1]), values[-1]]
    losses, gradient = weights.new_empty(rows * columns[-1]), torch.empty_like(weights)
    obs, action, next_obs = (
        x if x.stride(1) == 1 else x.contiguous() for x in (obs, action, next_obs)
    )
    scales = Scales(*(scale.contiguous() for scale in scales))
    layers = list(enumerate(zip(layer_offsets(sizes), pairwise(sizes), strict=True)))
    for i, (offset, (fan_in, fan_out)) in layers:
        network_layer_kernel[(rows, columns[i + 1])](
            weights[offset:],
            values[i],
            obs,
            action,
            next_obs,
            *scales,
            values[i + 1],
            losses,
            len(obs),
            1 / (sizes[-1] * len(obs)),
            obs.stride(0),
            action.stride(0),
            next_obs.stride(0),
            O=sizes[-1],
            IN=fan_in,
            OUT=fan_out,
            FIRST=i == 0,
            LAST=i == last,
            **_CUT,
            num_warps=_WARPS,  # pyright: ignore[reportCallIssue]
        )
    for i, (offset, (fan_in, fan_out)) in reversed(layers):
        network_layer_back_kernel[(columns[i + 1] + (rows if i else 0), columns[i])](
            weights[offset:],
            values[i],
            slopes[i + 1],
            gradient[offset:],
            slopes[i],
            len(obs),
            IN=fan_in,
            OUT=fan_out,
            FIRST=i == 0,
            **_CUT,
            num_warps=_WARPS,  # pyright: ignore[reportCallIssue]
        )
    return NetworkGradient(losses, gradient[None])
