"""BASED: linear attention whose kernel is the exponential's second-order Taylor polynomial."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import (
    check_offsets,
    check_sequences,
    check_shape,
    runs_as_kernel,
    work_dtype,
)
from hypercrl_kernels.memory.based.chunked import based_chunks
from hypercrl_kernels.memory.based.naive import EPSILON, feature_count


def based(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """o_t = Σ_{j≤t} p(s_tj) v_j / (Σ_{j≤t} p(s_tj) + ε), p(s) = 1 + s + s²/2, s = q_t·k_j / √K.

    Arora et al. 2024, section 4.1; ε = 1e-6. p is at least ½, so that the denominator is never near
    zero. The K(K + 3)/2 + 1 features of p are formed for what
    crosses from one chunk to the next alone.

    Args:
        q, k: [B, T, H, K]; K = 16 in the paper.
        v: [B, T, H, V].
        initial_state: [N, H, F, V + 1] with F = 1 + K + K(K + 1)/2; numerator, and the denominator
            as last column. None: zeros.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.

    Returns:
        o [B, T, H, V] in the dtype of v, and the final state, float32 (float64 for float64).

    Raises:
        ValueError: shapes that do not fit together.

    Example:
        >>> q, k, v = torch.randn(3, 2, 100, 4, 16)
        >>> o, state = based(q, k, v)
        >>> tuple(o.shape), tuple(state.shape)
        ((2, 100, 4, 16), (2, 4, 153, 17))
    """
    batch, length, heads = check_sequences("based", q, k, v)
    count = check_offsets("based", cu_seqlens, batch, length)
    features, columns = feature_count(q.shape[-1]), v.shape[-1] + 1
    sizes = {"N": count, "H": heads, "F": features, "V": columns}
    if initial_state is not None:
        check_shape("based", "initial_state", initial_state, "NHFV", **sizes)
        initial_state = initial_state.to(work_dtype(q))
    if runs_as_kernel("based", q, None if cu_seqlens is None else "it has cu_seqlens"):
        from hypercrl_kernels.memory.based.op import based_kernels

        return based_kernels(q, k, v, initial_state, EPSILON)
    if initial_state is None:
        shape = (count, heads, features, columns)
        initial_state = torch.zeros(shape, dtype=work_dtype(q), device=q.device)
    extended = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    o, state = based_chunks(q, k, extended, initial_state, cu_seqlens)
    return (o[..., :-1] / (o[..., -1:] + EPSILON)).to(v.dtype), state
