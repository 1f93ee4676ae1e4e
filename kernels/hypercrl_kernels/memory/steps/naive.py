"""The steps in torch operations: what each does to its state, which they write in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hypercrl_kernels.memory.based.naive import EPSILON, taylor_features
from hypercrl_kernels.memory.chunk_memory.naive import Error, normalised
from hypercrl_kernels.memory.chunk_memory.writes import each_head
from hypercrl_kernels.memory.mlp_memory.chunked import mlp_memory_chunks
from hypercrl_kernels.memory.mlp_memory.naive import Activation, MLPState

LEAST_LENGTH = 1e-6
"""What a key is divided by at least when it is brought to length 1."""


def memory_step_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: Tensor,
    scale: float,
    error: Error = "none",
    normalise: bool = False,
    unit_keys: bool = False,
) -> Tensor:
    """`memory_step` in torch operations."""
    memory, velocity = (state, None) if log_momentum is None else state.unbind(2)
    read, keys, values = (x.to(state.dtype) for x in each_head(q, k, v))
    if unit_keys:
        read, keys = (functional.normalize(x, dim=-1, eps=LEAST_LENGTH) for x in (read, keys))
    if normalise:
        values = torch.cat([values, torch.ones_like(values[..., :1])], -1)
    decay = None if log_decay is None else log_decay.to(state.dtype).exp()[..., None]
    if decay is not None and decay.dim() < state.dim():
        decay = decay[..., None]  # one for all keys
    if keys.dim() == 3:
        keys, values, beta = keys[:, None], values[:, None], None if beta is None else beta[:, None]
    for i in range(keys.shape[1]):
        key, value = keys[:, i], values[:, i]
        decay = decay if i == 0 else None  # once, before the first
        if decay is not None and error != "before_decay" and error != "chunk_start":
            memory.mul_(decay)
        if error != "none":
            value = value - _apply(memory, key)
        if decay is not None and error in ("before_decay", "chunk_start"):
            memory.mul_(decay)
        if beta is not None:
            value = beta[:, i, :, None] * value
        written = key[..., None] * value[..., None, :]
        if velocity is not None and log_momentum is not None:
            velocity.mul_(log_momentum.to(state.dtype).exp()[..., None, None]).add_(written)
            written = velocity
        memory.add_(written)
    o = _apply(memory, read * scale)
    if normalise:
        o = normalised(o)
    return o.to(v.dtype)


def gla_step_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, scale: float
) -> Tensor:
    """`gla_step` in torch operations."""
    read, key, value = (x.to(state.dtype) for x in (q, k, v))
    state.mul_(log_decay.to(state.dtype).exp()[..., None])
    state.addcmul_(key[..., None], value[..., None, :])
    return _apply(state, read * scale).to(v.dtype)


def based_step_reference(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """`based_step` in torch operations."""
    read, key = (taylor_features(x.to(state.dtype)) for x in (q, k))
    value = torch.cat([v, torch.ones_like(v[..., :1])], -1).to(state.dtype)
    o = _apply(state.addcmul_(key[..., None], value[..., None, :]), read)
    return (o[..., :-1] / (o[..., -1:] + EPSILON)).to(v.dtype)


def mlp_memory_step_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: MLPState,
    activation: Activation,
) -> Tensor:
    """`mlp_memory_step` in torch operations."""
    gates = {"log_decay": log_decay, "beta": beta, "log_momentum": log_momentum}
    o, final = mlp_memory_chunks(
        *(x[:, None] for x in (q, k, v)),
        state=state,
        **{name: None if gate is None else gate[:, None] for name, gate in gates.items()},
        activation=activation,
        chunk=1,
    )
    for kept, new in zip(state.in_full(), final.in_full(), strict=True):
        kept.copy_(new)
    return o[:, 0]


def _apply(memory: Tensor, key: Tensor) -> Tensor:
    """[B, H, K, V] and [B, H, K] → [B, H, V]."""
    return torch.matmul(key[..., None, :], memory)[..., 0, :]
