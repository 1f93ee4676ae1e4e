"""The recurrence that defines gated linear attention, one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import each_segment, zero_state


def gla_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`chunk_gla` one step at a time; q is scaled."""
    state = zero_state(q, v, None, cu_seqlens) if initial_state is None else initial_state
    if cu_seqlens is not None:
        return each_segment(_recur, (q, k, v, log_decay), state, cu_seqlens)
    return _recur(q, k, v, log_decay, state)


def _recur(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(q.shape[1]):
        read, key, value, g = (x[:, t].to(state.dtype) for x in (q, k, v, log_decay))
        state = g.exp()[..., None] * state + key[..., None] * value[..., None, :]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, read))
    o = torch.stack(outputs, 1) if outputs else torch.zeros_like(v)
    return o.to(v.dtype), state
