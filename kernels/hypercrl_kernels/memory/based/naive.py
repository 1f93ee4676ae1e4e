"""The recurrence that defines BASED, over the features of its Taylor polynomial."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import each_segment

EPSILON = 1e-6
"""Beside the denominator."""


def feature_count(width: int) -> int:
    """Features of a key of `width` numbers: 1, itself, and its products without repeats."""
    return 1 + width + width * (width + 1) // 2


def taylor_features(x: Tensor) -> Tensor:
    """[..., K] → [..., 1 + K + K(K + 1)/2]: products of two are 1 + s + s²/2, s = q·k / √K.

    The mixed products of the original (Arora et al. 2024, section 4.1) appear twice there; here
    once, times √2.
    """
    width = x.shape[-1]
    x = x * width**-0.25
    row, column = torch.triu_indices(width, width, device=x.device)
    square = x[..., row] * x[..., column]
    square = torch.where(row == column, square * 0.5**0.5, square)
    return torch.cat([torch.ones_like(x[..., :1]), x, square], -1)


def based_recurrence(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Numerator and, as its last column, denominator of `based`, one step at a time.

    Args:
        v: [B, T, H, V + 1], its last column ones.
        state: [N, H, F, V + 1].
    """
    if cu_seqlens is not None:
        return each_segment(based_recurrence, (q, k, v), state, cu_seqlens)
    outputs = []
    for t in range(q.shape[1]):
        read, key = (taylor_features(x[:, t].to(state.dtype)) for x in (q, k))
        state = state + key[..., None] * v[:, t, :, None].to(state.dtype)
        outputs.append(torch.einsum("bhfv,bhf->bhv", state, read))
    return torch.stack(outputs, 1) if outputs else v.to(state.dtype), state
