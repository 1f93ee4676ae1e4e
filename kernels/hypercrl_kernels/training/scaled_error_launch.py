"""The launch of the scaled error; imported only where Triton is used."""

import torch
from torch import Tensor

from hypercrl_kernels.training.scaled_error_triton import scaled_error_kernel


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
