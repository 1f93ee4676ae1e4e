"""Gated linear attention a chunk at a time, in torch operations: the CPU's path.

And the delta rule in such a memory, which `chunk_memory` takes from here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding, zero_state
from hypercrl_kernels.memory.chunks import Cut

CHUNK = 16
"""Work inside a chunk is C K multiplications a step, none of them in a matrix product."""


def gla_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`gla_recurrence`, a chunk at a time; the same arguments and results.

    With write strengths `beta` [B, T, H] the error after the decay is written, not the value:
    `memory_recurrence` with error="after_decay".
    """
    state = zero_state(q, v, None, cu_seqlens) if initial_state is None else initial_state
    if cu_seqlens is None:
        return _chunks(q, k, v, log_decay, beta, state)
    padding = Padding(cu_seqlens)
    q, k, v, log_decay = (padding.split(x) for x in (q, k, v, log_decay))
    o, state = _chunks(q, k, v, log_decay, padding.split(beta), state)
    return padding.join(o), state


def _chunks(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q.shape
    if length == 0:
        return v.clone(), state.clone()
    cut = Cut(length, min(CHUNK, length), state.dtype)
    queries, keys, values, gates = (cut.rows(x) for x in (q, k, v, log_decay))

    total = gates.cumsum(-2)
    # From after step j to the end of the chunk: no sum holds a step that it would have to subtract.
    rest = torch.nn.functional.pad(gates[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)
    old_reads = queries * total.exp()
    carried = keys * rest.exp()
    kept = total[..., -1, :, None].exp()

    memory = state.flatten(0, 1)
    outputs = []
    if beta is None:
        own = torch.matmul(_pair_weights(queries, keys, gates.exp()), values)
        for n in range(cut.chunks):
            outputs.append(torch.baddbmm(own[n], old_reads[n], memory))
            memory = torch.baddbmm(kept[n] * memory, carried[n].transpose(1, 2), values[n])
    else:
        scores, alike = _pair_weights(torch.stack([queries, keys]), keys, gates.exp())
        strength = cut.rows(beta[..., None])
        right = strength * torch.cat([values, keys * total.exp()], -1)
        # Forward substitution, as in `memory_chunks`; what is on the diagonal is not looked at.
        solved = torch.linalg.solve_triangular(
            strength * alike, right, upper=False, unitriangular=True
        )
        fresh, seen = solved.split([values.shape[-1], keys.shape[-1]], -1)
        for n in range(cut.chunks):
            write = torch.baddbmm(fresh[n], seen[n], memory, alpha=-1)
            outputs.append(torch.baddbmm(torch.bmm(scores[n], write), old_reads[n], memory))
            memory = torch.baddbmm(kept[n] * memory, carried[n].transpose(1, 2), write)
    o = cut.join(torch.stack(outputs), batch, heads).to(v.dtype)
    return o, memory.unflatten(0, (batch, heads))


def _pair_weights(queries: Tensor, keys: Tensor, decay: Tensor) -> Tensor:
    """Σ_k q_tk k_jk · (decay of k from step j + 1 to t), [..., C, C], 0 for j > t.

    Queries may have more axes in front than keys.

    Decays are multiplied up lag by lag, never divided: a quotient of two of them would overflow.
    """
    size = queries.shape[-2]
    decayed, lags = keys, [(queries * keys).sum(-1)]
    for lag in range(1, size):
        decayed = decayed[..., :-1, :] * decay[..., lag:, :]
        product = (queries[..., lag:, :] * decayed).sum(-1)
        lags.append(torch.nn.functional.pad(product, (lag, 0)))
    step = torch.arange(size, device=queries.device)
    lag = step[:, None] - step
    weights = torch.stack(lags, -1).gather(-1, lag.clamp_min(0).expand(*queries.shape[:-1], size))
    return weights.masked_fill(lag < 0, 0)
