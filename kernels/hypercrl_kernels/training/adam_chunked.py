"""Adam on a CPU: torch's own fused step, on chunks that lie in a core's cache."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings

CHUNK = 1 << 18
"""Numbers of a chunk: beyond the microseconds in which Python starts an operation, and small enough
that what one operation writes is in the cache when the next one reads it."""


def fused_adam(
    parameter: Tensor, gradient: Tensor, moments: AdamMoments, settings: AdamSettings
) -> None:
    """Adam's step, in place on parameter and moments, which count it already."""
    torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
        [parameter],
        [gradient],
        [moments.mean],
        [moments.square],
        [],
        [moments.step],
        lr=settings.rate,
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=0.0,
        eps=settings.epsilon,
        amsgrad=False,
        maximize=False,
    )


def clipped_step_chunked(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    norm: Tensor,
    limit: float,
) -> None:
    """Adam's step on gradient · min(1, limit / (norm + 10⁻⁶)), in place, rows in chunks; it is not
    counted."""
    scale = min(1.0, limit / (float(norm) + 1e-6))
    counted = moments._replace(step=moments.step + 1)
    for start in range(0, len(parameter), CHUNK):
        part = slice(start, start + CHUNK)
        slope = gradient[part]
        if scale < 1:
            slope = slope * scale
        fused_adam(parameter[part], slope, counted.part(part.start, part.stop), settings)
