"""Adam in one pass over memory: where its next step leads, and the step itself."""

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_chunked import clipped_step_chunked
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings, adam_reference


@torch.no_grad()
def adam_ahead(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    out: Tensor | None = None,
) -> Tensor:
    """θ + Δθ for the step that Adam would take on this gradient; nothing but `out` is changed.

    One Triton kernel on CUDA, torch operations elsewhere. All tensors are contiguous and alike.
    """
    out = torch.empty_like(parameter) if out is None else out
    if parameter.device.type == "cuda":
        from hypercrl_kernels.training.adam_launch import launch_adam

        launch_adam(parameter, gradient, moments, settings, out)
        return out
    return out.copy_(adam_reference(parameter, gradient, moments, settings)[0])


@torch.no_grad()
def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    norm: Tensor,
    limit: float,
) -> None:
    """Take Adam's step, in place, on gradient · min(1, limit / (norm + 10⁻⁶)).

    Args:
        norm: [], what is to be clipped to `limit`: as `torch.nn.utils.clip_grads_with_norm_`.
    """
    if parameter.device.type == "cuda":
        from hypercrl_kernels.training.adam_launch import launch_adam

        launch_adam(parameter, gradient, moments, settings, parameter, norm, limit)
    else:
        clipped_step_chunked(parameter, gradient, moments, settings, norm, limit)
    moments.step.add_(1)
