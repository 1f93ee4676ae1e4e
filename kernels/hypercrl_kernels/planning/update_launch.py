"""Launches of the sampling and elites kernels; imported only where Triton is used."""

import torch
import triton
from torch import Tensor

from hypercrl_kernels.planning.elites_reference import Elites
from hypercrl_kernels.planning.elites_triton import elites_kernel
from hypercrl_kernels.planning.sampling_triton import sampling_kernel

_TILE = 8192  # values a program of the elites kernel holds: 32 a thread


def launch_elites(returns: Tensor, actions: Tensor, elites: int, min_std: Tensor) -> Elites:
    """`elite_statistics` by the kernel."""
    robots, samples, horizon, control = actions.shape
    size = horizon * control
    padded = triton.next_power_of_2(samples)
    coordinates = max(1, min(8, _TILE // padded))
    mean, std, best = actions.new_empty(3, robots, horizon, control)
    elites_kernel[(triton.cdiv(size, coordinates), robots)](
        returns.contiguous(),
        actions.contiguous(),
        min_std.contiguous(),
        mean,
        std,
        best,
        samples,
        size,
        elites,
        CONTROL=control,
        SAMPLES=padded,
        COORDINATES=coordinates,
        num_warps=4 if padded * coordinates <= _TILE // 2 else 8,  # pyright: ignore[reportCallIssue]
    )
    return Elites(mean, std, best)


def launch_sampling(mean: Tensor, std: Tensor, noise: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`sample_actions` by the kernel."""
    robots, samples, horizon, control = noise.shape
    actions = torch.empty_like(noise, memory_format=torch.contiguous_format)
    total = samples * horizon * control
    block = 512
    sampling_kernel[(triton.cdiv(total, block), robots)](
        mean.contiguous(),
        std.contiguous(),
        noise.contiguous(),
        low.contiguous(),
        high.contiguous(),
        actions,
        total,
        horizon * control,
        CONTROL=control,
        BLOCK=block,
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )
    return actions
