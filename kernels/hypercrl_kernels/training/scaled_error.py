"""Squared error of a prediction of scaled changes: the loss of a dynamics model."""

from typing import Any

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order

MOST_NUMBERS = 1 << 14
"""Numbers that one program of the kernel goes through."""


def scaled_error(
    outputs: Tensor, obs: Tensor, next_obs: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    """(1/O) ΣΣ (outputs − (next_obs − obs − mean) / scale)², a scalar.

    On CUDA, up to `MOST_NUMBERS` and in float32, one Triton kernel forms the loss and its gradient
    with respect to the outputs; nothing else gets one. Torch operations elsewhere and for more.

    Args:
        outputs, obs, next_obs: [B, O]; mean, scale: [O].
    """
    small = outputs.numel() <= MOST_NUMBERS and outputs.dtype == torch.float32
    if outputs.is_cuda and small:
        return ScaledError.apply(outputs, obs, next_obs, mean, scale)
    return scaled_error_reference(outputs, obs, next_obs, mean, scale)


def scaled_error_reference(
    outputs: Tensor, obs: Tensor, next_obs: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    """`scaled_error` in torch operations."""
    target = (next_obs - obs - mean) / scale
    return ((outputs - target).square().sum(-1) / outputs.shape[-1]).sum()


class ScaledError(torch.autograd.Function):
    """`scaled_error` by the kernel."""

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, obs: Tensor, next_obs: Tensor, mean: Tensor, scale: Tensor
    ) -> Tensor:
        from hypercrl_kernels.training.scaled_error_launch import launch_scaled_error

        loss, slope = launch_scaled_error(outputs, obs, next_obs, mean, scale)
        ctx.save_for_backward(slope, outputs)  # what the slope depends on
        return loss

    @staticmethod
    @first_order
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None, None]:
        slope, _ = ctx.saved_tensors
        return slopes[0] * slope, None, None, None, None
