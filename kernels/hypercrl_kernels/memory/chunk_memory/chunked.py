"""Matrix memories a chunk at a time, in torch operations: the CPU's path.

A few batched products a chunk instead of a step at a time; autograd differentiates it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding, zero_state
from hypercrl_kernels.memory.chunk_memory.naive import Error
from hypercrl_kernels.memory.chunks import Cut, Weights


def memory_chunks(
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
    """`memory_recurrence`, a chunk at a time; the same arguments and results."""
    gates = (log_decay, beta, log_momentum)
    state = zero_state(q, v, log_momentum, cu_seqlens) if initial_state is None else initial_state
    if cu_seqlens is None:
        return _chunks(q, k, v, *gates, error, state, chunk, None)
    padding = Padding(cu_seqlens)
    parts = [padding.split(x) for x in (q, k, v, *gates)]
    o, final = _chunks(*parts, error, state, chunk, padding.valid)  # pyright: ignore
    return padding.join(o), final


def _chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    error: Error,
    state: Tensor,
    chunk: int,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q.shape
    if length == 0:
        return v.clone(), state.clone()  # empty as v is, and connected with it
    chunk = chunk if error == "chunk_start" else min(chunk, length)
    dtype = state.dtype
    cut = Cut(length, chunk, dtype)
    queries, keys, values = cut.rows(q), cut.rows(k), cut.rows(v)
    strength = None if beta is None else cut.rows(beta[..., None])
    memory = state.flatten(0, 1)
    velocity = None
    if log_momentum is not None:
        memory, velocity = memory.unbind(1)

    if valid is None and log_momentum is not None and cut.padding:
        valid = torch.ones(batch, length, dtype=torch.bool, device=q.device)
    written = None if valid is None else cut.rows(valid[..., None, None].expand(-1, -1, heads, 1))
    w = Weights(
        None if log_decay is None else cut.rows(log_decay[..., None])[..., 0],
        None if log_momentum is None else cut.rows(log_momentum[..., None])[..., 0],
        None if written is None else written[..., 0],
        keys,
    )

    read_weight = torch.matmul(queries, keys.transpose(-1, -2)) * w.read
    carried = keys * w.read[..., -1, :, None]
    old_reads = queries if w.start is None else queries * w.start[..., None]

    if error in ("before_decay", "after_decay"):
        predict, from_memory, from_velocity = w.prediction(error == "after_decay")
        mixing = torch.matmul(keys, keys.transpose(-1, -2)) * predict
        known = keys if from_memory is None else keys * from_memory[..., None]
        right = [values, known]
        if from_velocity is not None:
            right.append(keys * from_velocity[..., None])
        right = torch.cat(right, -1)
        if strength is not None:
            mixing, right = strength * mixing, strength * right
        # Forward substitution: with correlated keys any series for the inverse diverges.
        solved = torch.linalg.solve_triangular(mixing, right, upper=False, unitriangular=True)
        widths = [values.shape[-1]] + [keys.shape[-1]] * (1 if from_velocity is None else 2)
        fresh, *seen = solved.split(widths, -1)
    else:
        fresh = values if strength is None else strength * values
        seen = []
        if error == "chunk_start":
            seen = [keys if strength is None else strength * keys]

    outputs = []
    for n in range(cut.chunks):
        write = fresh[n]
        if seen:
            write = torch.baddbmm(write, seen[0][n], memory, alpha=-1)
        if velocity is not None and len(seen) > 1:
            write = torch.baddbmm(write, seen[1][n], velocity, alpha=-1)
        o = torch.baddbmm(torch.bmm(old_reads[n], memory), read_weight[n], write)
        memory = memory if w.start is None else w.start[n, :, -1, None, None] * memory
        if velocity is not None:
            o = torch.baddbmm(o, queries[n] * w.start_velocity[n, ..., None], velocity)
            memory = memory + w.start_velocity[n, :, -1, None, None] * velocity
            kept = keys[n] * w.velocity[n, :, -1, :, None]
            velocity = w.velocity_start[n, :, -1, None, None] * velocity
            velocity = torch.baddbmm(velocity, kept.transpose(1, 2), write)
        memory = torch.baddbmm(memory, carried[n].transpose(1, 2), write)
        outputs.append(o)
    final = memory if velocity is None else torch.stack([memory, velocity], 1)
    o = cut.join(torch.stack(outputs), batch, heads).to(v.dtype)
    return o, final.unflatten(0, (batch, heads))
