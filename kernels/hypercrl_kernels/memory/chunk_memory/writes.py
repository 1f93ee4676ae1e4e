"""Several writes a step as steps of their own, and fewer queries and keys than memories."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad


def each_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q and k [..., G, K] as [..., H, K], for v [..., H, V]: head h has those of h // (H / G)."""
    heads, groups = v.shape[-2], q.shape[-2]
    if groups == heads:
        return q, k, v
    q, k = (x.repeat_interleave(heads // groups, -2) for x in (q, k))
    return q, k, v


def one_after_another(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """A sequence of T steps with n writes each as one of n T steps with one write.

    The first of a step's n decays the memory, and the last reads it.

    Args:
        q: [B, T, H, K].
        k, v, beta: [B, T, n, H, …].
        log_decay: [B, T, H] or [B, T, H, K].
    """
    writes = k.shape[2]
    q = pad(q[:, :, None], (0, 0, 0, 0, writes - 1, 0)).flatten(1, 2)
    if log_decay is not None:
        others = (0, 0) * (log_decay.dim() - 2)
        log_decay = pad(log_decay[:, :, None], (*others, 0, writes - 1)).flatten(1, 2)
    if beta is not None:
        beta = beta.flatten(1, 2)
    offsets = None if cu_seqlens is None else writes * cu_seqlens
    return q, k.flatten(1, 2), v.flatten(1, 2), log_decay, beta, offsets
