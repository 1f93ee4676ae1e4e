"""Launches of the training kernels; imported only where Triton is used."""

from math import log
from typing import Any

import triton
from torch import Tensor

from hypercrl_kernels.training.adam import AdamMoments, AdamSettings
from hypercrl_kernels.training.adam_triton import adam_kernel
from hypercrl_kernels.training.regularised_head import HeadGradients
from hypercrl_kernels.training.regularised_head_triton import regularised_head_kernel

_PROGRAMS = 132  # one for each multiprocessor of an H100
_BLOCK = 32  # written numbers at a time: 8 KB of each matrix, three of them on their way at once


def launch_adam(
    parameter: Tensor,
    gradient: Tensor,
    scale: Tensor | None,
    moments: AdamMoments,
    settings: AdamSettings,
    out: Tensor,
) -> None:
    """Write the parameter after the step to `out`; with a scale, moments in place too."""
    block = 1024
    adam_kernel[(triton.cdiv(len(parameter), block),)](
        parameter,
        gradient,
        moments.step if scale is None else scale,
        *moments,
        out,
        len(parameter),
        UPDATE=scale is not None,
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
        targets,
        targets if tasks is None else tasks,
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


def _constants(settings: AdamSettings) -> dict[str, Any]:
    return {
        "RATE": settings.rate,
        "BETA1": settings.beta1,
        "BETA2": settings.beta2,
        "EPSILON": settings.epsilon,
        "LOG_BETA1": log(settings.beta1),
        "LOG_BETA2": log(settings.beta2),
    }
