"""Launches of the training kernels; imported only where Triton is used."""

import itertools
from math import log
from typing import Any

import torch
import triton
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.adam_triton import adam_kernel
from hypercrl_kernels.training.narrow_mlp_triton import (
    narrow_mlp_back_kernel,
    narrow_mlp_kernel,
)
from hypercrl_kernels.training.regularised_head_reference import HeadGradients
from hypercrl_kernels.training.regularised_head_triton import regularised_head_kernel
from hypercrl_kernels.training.scaled_error_triton import scaled_error_kernel

_PROGRAMS = 132  # one for each multiprocessor of an H100
_BLOCK = 32  # written numbers at a time: 8 KB of each matrix, three of them on their way at once


def launch_adam(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    out: Tensor,
    norm: Tensor | None = None,
    limit: float = 0.0,
) -> None:
    """Write the parameter after the step to `out`; with a norm, clipped, and moments too."""
    block = 1024
    adam_kernel[(triton.cdiv(len(parameter), block),)](
        parameter,
        gradient.contiguous(),
        moments.step if norm is None else norm,
        *moments,
        out,
        len(parameter),
        UPDATE=norm is not None,
        LIMIT=limit,
        BLOCK=block,
        **_constants(settings),
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )


def launch_regularised_head(
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
    """`regularised_head` by the kernel."""
    size, (count, width) = len(written_gradient), old.shape
    programs = min(_PROGRAMS, triton.cdiv(size, _BLOCK))
    padded, rows = max(16, triton.next_power_of_2(width)), max(16, triton.next_power_of_2(count))
    distances = head.new_empty(programs)
    old_gradients = head.new_empty(programs, rows, padded)
    regularised_head_kernel[(programs,)](
        head,
        gradient,
        moments.mean,
        moments.square,
        moments.step,
        written_gradient.contiguous(),
        hidden.contiguous(),
        old.contiguous(),
        targets.contiguous(),
        targets if tasks is None else tasks.contiguous(),
        distances,
        old_gradients,
        size,
        count,
        2 * strength / count,
        WIDTH=width,
        PADDED=padded,
        TASKS=rows,
        CHOSEN=tasks is not None,
        BLOCK=_BLOCK,
        **_constants(settings),
        num_warps=8,  # pyright: ignore[reportCallIssue]
        num_stages=3,  # pyright: ignore[reportCallIssue]
    )
    return HeadGradients(distances.sum(), old_gradients.sum(0)[:count, :width])


def launch_narrow_mlp(flat: Tensor, x: Tensor, sizes: tuple[int, ...], activation: str) -> Tensor:
    """Outputs of all layers, one after another, [rows, width] each."""
    outputs = x.new_empty(len(x) * sum(sizes[1:]))
    narrow_mlp_kernel[(1,)](flat, x, outputs, len(x), **_shape(len(x), sizes, activation))
    return outputs


def launch_narrow_mlp_back(
    flat: Tensor,
    x: Tensor,
    outputs: Tensor,
    slope: Tensor,
    sizes: tuple[int, ...],
    activation: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of `flat` and of `x`."""
    gradients = torch.empty_like(flat), torch.empty_like(x)
    starts = tuple(itertools.accumulate(sizes[1:-1], initial=0))
    narrow_mlp_back_kernel[(1,)](
        flat,
        x,
        outputs,
        slope,
        *gradients,
        len(x),
        **{"STARTS": starts, **_shape(len(x), sizes, activation)},
    )
    return gradients


def launch_scaled_error(
    outputs: Tensor, obs: Tensor, next_obs: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss [] and its gradient with respect to the outputs."""
    loss = outputs.new_empty(())
    slope = torch.empty_like(outputs, memory_format=torch.contiguous_format)
    scaled_error_kernel[(1,)](
        outputs.contiguous(),
        obs.contiguous(),
        next_obs.contiguous(),
        mean.contiguous(),
        scale.contiguous(),
        loss,
        slope,
        outputs.numel(),
        SIZE=outputs.shape[-1],
        BLOCK=1024,
        num_warps=8,  # pyright: ignore[reportCallIssue]
    )
    return loss, slope


def _shape(rows: int, sizes: tuple[int, ...], activation: str) -> dict[str, Any]:
    numbers = [(fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes)]
    return {
        "SIZES": sizes,
        "OFFSETS": tuple(itertools.accumulate(numbers[:-1], initial=0)),
        "ROWS": max(16, triton.next_power_of_2(rows)),
        "PADDED": max(16, triton.next_power_of_2(max(sizes))),
        "ELU": activation == "elu",
        "num_warps": 8,
    }


def _constants(settings: AdamSettings) -> dict[str, Any]:
    return {
        "RATE": settings.rate,
        "BETA1": settings.beta1,
        "BETA2": settings.beta2,
        "EPSILON": settings.epsilon,
        "LOG_BETA1": log(settings.beta1),
        "LOG_BETA2": log(settings.beta2),
    }
