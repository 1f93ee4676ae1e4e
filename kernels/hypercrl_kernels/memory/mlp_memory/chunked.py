"""Titans' MLP memory in its dual form, a chunk at a time in torch operations: the CPU's path."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding
from hypercrl_kernels.memory.chunks import Cut, Weights
from hypercrl_kernels.memory.mlp_memory.naive import Activation, MLPState


def mlp_memory_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: MLPState,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    activation: Activation = "gelu",
    cu_seqlens: Tensor | None = None,
    chunk: int = 32,
) -> tuple[Tensor, MLPState]:
    """`mlp_memory_recurrence` in dual form: the weights of single steps are never formed."""
    gates = (log_decay, beta, log_momentum)
    if cu_seqlens is None:
        return _chunks(q, k, v, state, *gates, activation, chunk, None)
    padding = Padding(cu_seqlens)
    q, k, v, log_decay, beta, log_momentum = (padding.split(x) for x in (q, k, v, *gates))  # pyright: ignore
    o, state = _chunks(
        q, k, v, state, log_decay, beta, log_momentum, activation, chunk, padding.valid
    )
    return padding.join(o), state


def _chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: MLPState,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    activation: Activation,
    chunk: int,
    valid: Tensor | None,
) -> tuple[Tensor, MLPState]:
    batch, length, heads, _ = q.shape
    if length == 0:
        return v.clone(), MLPState(*(s.clone() for s in state.in_full()))
    cut = Cut(length, min(chunk, length), state.w1.dtype)
    queries, keys, values = (cut.rows(x) for x in (q, k, v))
    if beta is None:
        beta = torch.ones(q.shape[:3], dtype=q.dtype, device=q.device)
    if valid is None:
        valid = torch.ones(batch, length, dtype=torch.bool, device=q.device)
    present = valid[..., None, None].expand(-1, -1, heads, 1)
    strength = cut.rows(torch.where(present, beta[..., None], 0))
    w = Weights(
        None if log_decay is None else cut.rows(log_decay[..., None])[..., 0],
        None if log_momentum is None else cut.rows(log_momentum[..., None])[..., 0],
        cut.rows(present)[..., 0],
        keys,
    )
    inner = torch.matmul(queries, keys.transpose(-1, -2)) * w.read
    read = w.read.expand(cut.chunks, *keys.shape[1:-1], cut.chunk)
    one = torch.ones_like(strength[..., 0])
    start = one if w.start is None else w.start

    w1, w2, s1, s2 = (s.flatten(0, 1) for s in state.in_full())
    outputs = []
    for n in range(cut.chunks):
        a = start[n, ..., None]
        f = w.start_velocity[n, ..., None] if w.has_velocity else None
        z = torch.bmm(keys[n], w1)
        hidden, slope = _activate(z, activation)
        u2 = torch.baddbmm(values[n], hidden, w2, alpha=-1)
        u1 = strength[n] * torch.bmm(u2, w2.transpose(1, 2)) * slope
        u2 = strength[n] * u2

        z = torch.baddbmm(a * torch.bmm(queries[n], w1), inner[n], u1)
        if f is not None:
            z = z + f * torch.bmm(queries[n], s1)
        x = _activate(z, activation)[0]
        mixing = torch.bmm(x, hidden.transpose(1, 2)) * read[n]
        o = torch.baddbmm(a * torch.bmm(x, w2), mixing, u2)
        if f is not None:
            o = o + f * torch.bmm(x, s2)
        outputs.append(o)

        keys_t, hidden_t = keys[n].transpose(1, 2), hidden.transpose(1, 2)
        last = read[n, :, -1, :, None]
        w1 = torch.baddbmm(a[:, -1:] * w1, keys_t, u1 * last)
        w2 = torch.baddbmm(a[:, -1:] * w2, hidden_t, u2 * last)
        if f is not None:
            w1, w2 = w1 + f[:, -1:] * s1, w2 + f[:, -1:] * s2
            kept = w.velocity_start[n, :, -1, None, None]
            last = w.velocity[n, :, -1, :, None]
            s1 = torch.baddbmm(kept * s1, keys_t, u1 * last)
            s2 = torch.baddbmm(kept * s2, hidden_t, u2 * last)
    final = MLPState(*(s.unflatten(0, (batch, heads)) for s in (w1, w2, s1, s2)))
    return cut.join(torch.stack(outputs), batch, heads).to(v.dtype), final


def _activate(x: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """σ(x) and σ'(x)."""
    if activation == "silu":
        gate = x.sigmoid()
        return x * gate, gate * (1 + x * (1 - gate))
    below = torch.special.ndtr(x)
    return x * below, below + x * (-0.5 * x.square()).exp() * (2 * torch.pi) ** -0.5
