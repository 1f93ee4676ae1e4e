"""Bounded Gaussian action sequences: the samples of CEM."""

import torch
from torch import Tensor


@torch.no_grad()
def sample_actions(mean: Tensor, std: Tensor, noise: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """clip(mean + std · noise, low, high). One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        mean, std: [B, H, A].
        noise: [B, K, H, A], standard normal.
        low, high: [A] bounds.

    Returns:
        [B, K, H, A].

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check_shapes(mean, std, noise, low, high)
    if noise.device.type == "cuda" and noise.dtype == mean.dtype == torch.float32:
        from hypercrl_kernels.planning.update_launch import launch_sampling

        return launch_sampling(mean, std, noise, low, high)
    return sample_actions_reference(mean, std, noise, low, high)


def sample_actions_reference(
    mean: Tensor, std: Tensor, noise: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """`sample_actions` in torch operations."""
    actions = torch.addcmul(mean[:, None], std[:, None], noise)
    return torch.clamp(actions, low, high)


def _check_shapes(mean: Tensor, std: Tensor, noise: Tensor, low: Tensor, high: Tensor) -> None:
    if noise.dim() != 4 or not mean.shape == std.shape == (noise.shape[0], *noise.shape[2:]):
        raise ValueError(
            f"sample_actions needs noise [B, K, H, A] with mean and std [B, H, A]; got "
            f"{tuple(noise.shape)} with {tuple(mean.shape)} and {tuple(std.shape)}"
        )
    if not low.shape == high.shape == noise.shape[3:]:
        raise ValueError(
            f"sample_actions needs bounds [A], here [{noise.shape[3]}]; got "
            f"{tuple(low.shape)} and {tuple(high.shape)}"
        )
