"""Rotary positions, so that scores of queries and keys see the lag between them."""

import torch
from torch import Tensor


def rotate(x: Tensor, position: Tensor, rates: Tensor) -> Tensor:
    """Turn each pair of channels, 2i and 2i + 1, by the angle position · rates_i.

    Su et al. 2021 (RoPE), eq. 34.

    Args:
        x: [..., H, K], K even.
        position: [...], steps since the beginning.
        rates: [K / 2].

    Returns:
        [..., H, K].
    """
    angle = (position[..., None] * rates)[..., None, :]
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(angle.cos(), angle.sin())).flatten(-2)
