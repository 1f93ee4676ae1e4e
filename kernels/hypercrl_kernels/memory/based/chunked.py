"""BASED a chunk at a time, in torch operations that form no features inside one: the CPU's path."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding
from hypercrl_kernels.memory.based.naive import taylor_features
from hypercrl_kernels.memory.chunks import Cut

CHUNK = 128
"""The state has about K² / 2 rows: longer chunks than with other memories pay."""


def taylor_features_backward(x: Tensor, d_features: Tensor) -> Tensor:
    """The gradient of x [..., K] from that of `taylor_features(x)`."""
    width = x.shape[-1]
    root = width**-0.25
    row, column = torch.triu_indices(width, width, device=x.device)
    d_single, d_square = d_features[..., 1:].split([width, len(row)], -1)
    # A matrix per step: sums by index would add in another order at every call on CUDA.
    pairs = x.new_zeros(*x.shape, width)
    pairs[..., row, column] = torch.where(row == column, d_square * 0.5**0.5, d_square)
    d_pairs = torch.matmul(pairs + pairs.transpose(-1, -2), x[..., None])[..., 0]
    return root * (d_single + root * d_pairs)


def based_chunks(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`based_recurrence`, a chunk at a time; the same arguments and results."""
    if cu_seqlens is not None:
        padding = Padding(cu_seqlens)
        parts = [padding.split(x) for x in (q, k, v)]
        o, state = based_chunks(*parts, state=state)
        return padding.join(o), state
    batch, length, heads, width = q.shape
    if length == 0:
        return v.to(state.dtype), state.clone()
    cut = Cut(length, min(CHUNK, length), state.dtype)
    queries, keys, values = (cut.rows(x) for x in (q, k, v))
    s = torch.matmul(queries, keys.transpose(-1, -2)) * width**-0.5
    own = torch.matmul((1 + s + 0.5 * s.square()).tril(), values)
    memory = state.flatten(0, 1)
    outputs = []
    for n in range(cut.chunks):
        outputs.append(torch.baddbmm(own[n], taylor_features(queries[n]), memory))
        written = taylor_features(keys[n]).transpose(1, 2)
        memory = torch.baddbmm(memory, written, values[n])
    o = cut.join(torch.stack(outputs), batch, heads)
    return o, memory.unflatten(0, (batch, heads))
