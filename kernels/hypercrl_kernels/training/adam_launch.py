"""Launches of Adam; imported only where Triton is used."""

from math import log
from typing import Any

import triton
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.adam_triton import adam_kernel

_BLOCK = 1024


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
    size = parameter.numel()
    adam_kernel[(triton.cdiv(size, _BLOCK),)](
        parameter,
        gradient.contiguous(),
        moments.step if norm is None else norm,
        *moments,
        out,
        size,
        UPDATE=norm is not None,
        LIMIT=limit,
        BLOCK=_BLOCK,
        **adam_constants(settings),
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )


def adam_constants(settings: AdamSettings) -> dict[str, Any]:
    """Those of every kernel that takes Adam's step."""
    return {
        "RATE": settings.rate,
        "BETA1": settings.beta1,
        "BETA2": settings.beta2,
        "EPSILON": settings.epsilon,
        "LOG_BETA1": log(settings.beta1),
        "LOG_BETA2": log(settings.beta2),
    }
