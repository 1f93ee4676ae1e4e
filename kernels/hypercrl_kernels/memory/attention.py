"""What is exact attention, through torch's own: Hopfield retrieval and sliding windows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from hypercrl_kernels.memory.arguments import check_offsets, check_sequences, check_shape


def hopfield_retrieval(
    query: Tensor,
    stored: Tensor,
    values: Tensor | None = None,
    *,
    updates: int = 1,
    beta: float | None = None,
    mask: Tensor | None = None,
    persistent: Tensor | None = None,
) -> Tensor:
    """ξ ← softmax(β ξ Kᵀ) K for all updates but the last, which multiplies the values instead.

    Ramsauer et al. 2021, eqs. 3 and 10.

    Args:
        query: [B, L, H, D], state patterns.
        stored: [B, S, H, D], stored patterns K.
        values: [B, S, H, V]; the stored patterns by default.
        updates: at least 1.
        beta: inverse temperature; D^-½ by default.
        mask: [B, S], True for patterns that exist, or [B, L, S], for those that a query sees. A
            row without any retrieves zeros.
        persistent: [2, P, H, D], stored patterns and values that every query sees besides; V = D.

    Returns:
        [B, L, H, V].

    Raises:
        ValueError: shapes that do not fit together.
    """
    name = "hopfield_retrieval"
    if query.dim() != 4:
        raise ValueError(f"{name} needs query [B, L, H, D]; got {tuple(query.shape)}")
    sizes = {"B": query.shape[0], "H": query.shape[2], "D": query.shape[3]}
    check_shape(name, "stored", stored, "BSHD", **sizes)
    sizes["S"] = stored.shape[1]
    if values is not None:
        check_shape(name, "values", values, "BSHV", **sizes)
    if mask is not None:
        sizes["L"] = query.shape[1]
        check_shape(name, "mask", mask, "BS" if mask.dim() == 2 else "BLS", **sizes)
        if mask.dim() == 2:
            mask = mask[:, None]
    if updates < 1:
        raise ValueError(f"{name} needs at least 1 update, not {updates}")
    if persistent is not None:
        check_shape(name, "persistent", persistent, "2PHD", **sizes, **{"2": 2})
        first, second = (part.expand(len(stored), -1, -1, -1) for part in persistent)
        values = torch.cat([second, stored if values is None else values], 1)
        stored = torch.cat([first, stored], 1)
        mask = None if mask is None else pad(mask, (persistent.shape[1], 0), value=True)
    pattern, keys = query.transpose(1, 2), stored.transpose(1, 2)
    last = keys if values is None else values.transpose(1, 2)
    allowed = None if mask is None else mask[:, None]
    for update in range(updates):
        out = last if update == updates - 1 else keys
        pattern = scaled_dot_product_attention(pattern, keys, out, allowed, scale=beta)
    return pattern.transpose(1, 2)


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    prefix: int = 0,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Causal softmax attention over the last `window` steps, the present one among them.

    Work and memory are O(T · window): queries in blocks of a window see two blocks of keys.

    Args:
        q, k: [B, T, H, K].
        v: [B, T, H, V].
        window: steps that a query sees.
        prefix: first steps of every sequence that all later queries see besides: persistent tokens
            (Titans, Behrouz et al. 2025, section 4.2). Not together with cu_seqlens.
        scale: of the scores; K^-½ by default.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.

    Returns:
        [B, T, H, V].

    Raises:
        ValueError: shapes that do not fit together.
    """
    name = "sliding_window_attention"
    batch, length, _ = check_sequences(name, q, k, v)
    check_offsets(name, cu_seqlens, batch, length)
    if window < 1:
        raise ValueError(f"{name} needs a window of at least 1 step, not {window}")
    if prefix and cu_seqlens is not None:
        raise ValueError(f"{name} takes a prefix or cu_seqlens, not both")
    if length == 0:
        return torch.zeros_like(v)
    size = min(window, length)
    blocks = -(-length // size)
    extra = blocks * size - length

    def cut(x: Tensor, before: int) -> Tensor:
        """[B, T, H, D] → [B N, H, before + C, D], each block with the steps before it."""
        x = pad(x, (0, 0, 0, 0, before, extra))
        x = x.unfold(1, before + size, size)  # [B, N, H, D, before + C]
        return x.permute(0, 1, 2, 4, 3).flatten(0, 1)

    keys, values = cut(k, size), cut(v, size)
    step = torch.arange(blocks * size, device=q.device).view(blocks, size)
    seen = torch.arange(-size, blocks * size, device=q.device).unfold(0, 2 * size, size)
    lag = step[:, :, None] - seen[:, None, :]
    allowed = (lag >= 0) & (lag < window) & (seen >= 0)[:, None, :]
    if cu_seqlens is not None:
        segment = torch.searchsorted(cu_seqlens, torch.arange(length, device=q.device), right=True)
        segment = pad(segment, (size, extra))
        own = segment[size:].view(blocks, size)
        allowed = allowed & (own[:, :, None] == segment.unfold(0, 2 * size, size)[:, None, :])
    allowed = allowed.repeat(batch, 1, 1)
    if prefix:
        first = slice(0, prefix)
        fixed = [x[:, first].transpose(1, 2).repeat_interleave(blocks, 0) for x in (k, v)]
        keys, values = torch.cat([fixed[0], keys], 2), torch.cat([fixed[1], values], 2)
        # What the window shows already is not shown twice.
        hidden = step[:, :, None] - torch.arange(fixed[0].shape[2], device=q.device) >= window
        allowed = torch.cat([hidden.repeat(batch, 1, 1), allowed], -1)
    o = scaled_dot_product_attention(cut(q, 0), keys, values, allowed[:, None], scale=scale)
    o = o.unflatten(0, (batch, blocks)).transpose(2, 3).flatten(1, 2)
    return o[:, :length]
