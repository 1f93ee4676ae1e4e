"""The recurrence that defines a matrix memory, one step at a time."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import each_segment, zero_state

Error = Literal["none", "chunk_start", "before_decay", "after_decay"]
"""Which memory's prediction of v is subtracted from it before it is written: none; that at the
start of the chunk; the last one; the last one after it has decayed."""


def memory_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    error: Error = "none",
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """`chunk_memory` one step at a time; q is scaled, no gate is [H]."""
    heads = v.shape[-2]
    q, k = (x.repeat_interleave(heads // x.shape[-2], -2) for x in (q, k))
    if k.dim() == 4:  # one write a step
        k, v = k[:, :, None], v[:, :, None]
        beta = None if beta is None else beta[:, :, None]
    gates = (log_decay, beta, log_momentum)
    state = zero_state(q, v, log_momentum, cu_seqlens) if initial_state is None else initial_state
    recur = partial(_recur, error=error, chunk=chunk)
    if cu_seqlens is not None:
        return each_segment(recur, (q, k, v, *gates), state, cu_seqlens)
    return recur(q, k, v, *gates, state)


def _recur(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: Tensor,
    error: Error,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    dtype = state.dtype
    none = torch.zeros(q.shape[:3], dtype=dtype, device=q.device)
    decay = (none if log_decay is None else log_decay.to(dtype)).exp()
    decay = decay[..., None] if decay.dim() == 3 else decay  # [B, T, H, 1 or K]
    strength = torch.ones_like(v[..., 0], dtype=dtype) if beta is None else beta.to(dtype)
    momentum = None if log_momentum is None else log_momentum.to(dtype).exp()
    memory, velocity = (state, None) if momentum is None else state.unbind(2)
    start, outputs = memory, []
    for t in range(q.shape[1]):
        if t % chunk == 0:
            start = memory
        a = decay[:, t, ..., None]
        writes = [x[:, t].to(dtype).unbind(1) for x in (k, v, strength)]
        for key, value, share in zip(*writes, strict=True):
            if error == "chunk_start":
                value = value - _apply(start, key)
            elif error == "before_decay":
                value = value - _apply(memory, key)
            elif error == "after_decay":
                value = value - _apply(a * memory, key)
            write = torch.einsum("bhk,bhv->bhkv", key, share[..., None] * value)
            if momentum is not None and velocity is not None:
                write = velocity = momentum[:, t, :, None, None] * velocity + write
            memory = a * memory + write
            a = torch.ones_like(a)  # a step decays once, before its first write
        outputs.append(_apply(memory, q[:, t].to(dtype)))
    o = torch.stack(outputs, 1) if outputs else v[:, :, -1]
    final = memory if velocity is None else torch.stack([memory, velocity], 2)
    return o.to(v.dtype), final


def _apply(memory: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("bhkv,bhk->bhv", memory, key)


def normalised(o: Tensor) -> Tensor:
    """o [..., V + 1] by its last column, or as it is where that is zero."""
    normaliser = o[..., -1:]
    return o[..., :-1] / normaliser.masked_fill(normaliser == 0, 1)
