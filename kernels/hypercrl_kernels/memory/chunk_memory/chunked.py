"""Matrix memories in torch operations: the recurrence that defines them, and the chunk form.

The chunk form is the CPU's path: a few batched products a chunk instead of a step at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding, each_segment, work_dtype

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
    """`chunk_memory` one step at a time; q is scaled, all gates are [B, T, H]."""
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
    ones = torch.ones(q.shape[:3], dtype=dtype, device=q.device)
    decay = ones if log_decay is None else log_decay.to(dtype).exp()
    strength = ones if beta is None else beta.to(dtype)
    momentum = None if log_momentum is None else log_momentum.to(dtype).exp()
    memory, velocity = (state, None) if momentum is None else state.unbind(2)
    start, outputs = memory, []
    for t in range(q.shape[1]):
        read, key, value = (x[:, t].to(dtype) for x in (q, k, v))
        if t % chunk == 0:
            start = memory
        a = decay[:, t, :, None, None]
        if error == "chunk_start":
            value = value - _apply(start, key)
        elif error == "before_decay":
            value = value - _apply(memory, key)
        elif error == "after_decay":
            value = value - _apply(a * memory, key)
        write = torch.einsum("bhk,bhv->bhkv", key, strength[:, t, :, None] * value)
        if momentum is not None and velocity is not None:
            write = velocity = momentum[:, t, :, None, None] * velocity + write
        memory = a * memory + write
        outputs.append(_apply(memory, read))
    o = torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape)
    final = memory if velocity is None else torch.stack([memory, velocity], 2)
    return o.to(v.dtype), final


def _apply(memory: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("bhkv,bhk->bhv", memory, key)


def zero_state(
    q: Tensor, v: Tensor, log_momentum: Tensor | None, cu_seqlens: Tensor | None
) -> Tensor:
    """[N, H, K, V], with momentum [N, H, 2, K, V]."""
    count = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
    two = () if log_momentum is None else (2,)
    shape = (count, q.shape[2], *two, q.shape[3], v.shape[3])
    return torch.zeros(shape, dtype=work_dtype(q), device=q.device)


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


def normalised(o: Tensor) -> Tensor:
    """o [..., V + 1] by its last column, or as it is where that is zero."""
    normaliser = o[..., -1:]
    return o[..., :-1] / normaliser.masked_fill(normaliser == 0, 1)


class Cut:
    """A sequence cut into N chunks of C steps, chunks outermost: each is a batch of matrices."""

    def __init__(self, length: int, chunk: int, dtype: torch.dtype) -> None:
        self.length, self.chunk, self.dtype = length, chunk, dtype
        self.chunks = -(-length // chunk)
        self.padding = self.chunks * chunk - length

    def rows(self, x: Tensor) -> Tensor:
        """[B, T, H, D] → [N, B H, C, D], zeros beyond the end."""
        x = torch.nn.functional.pad(x.to(self.dtype), (0, 0, 0, 0, 0, self.padding))
        x = x.unflatten(1, (self.chunks, self.chunk)).permute(1, 0, 3, 2, 4)
        return x.flatten(1, 2).contiguous()

    def join(self, x: Tensor, batch: int, heads: int) -> Tensor:
        """[N, B H, C, D] → [B, T, H, D]."""
        x = x.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)
        return x[:, : self.length]


def decays(log_gate: Tensor) -> Tensor:
    """exp of the sum of the gates from j + 1 to t, [..., C, C], 0 for j > t.

    Each sum runs over its own terms: a difference of cumulative sums would cancel.
    """
    size = log_gate.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_gate.device).tril()
    terms = log_gate[..., None].expand(*log_gate.shape, size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf).exp()


class Weights:
    """How strongly step t sees what entered at step j ≤ t, or what was there before the chunk.

    With M the memory, S its velocity: M_t = start_t M₀ + start_velocity_t S₀ + Σ_j read_tj k_j u_jᵀ
    and S_t = velocity_start_t S₀ + Σ_j velocity_tj k_j u_jᵀ.

    Args:
        log_decay, log_momentum: [N, B H, C], None where there is none.
        valid: [N, B H, C], zero for steps beyond the end, which leave everything as it is.
        like: a tensor [..., C, K] of the chunk size, dtype and device.
    """

    def __init__(
        self,
        log_decay: Tensor | None,
        log_momentum: Tensor | None,
        valid: Tensor | None,
        like: Tensor,
    ) -> None:
        size = like.shape[-2]
        self.log_decay = log_decay
        self.start: Tensor | None = None
        if log_decay is None:
            self.read = torch.ones(size, size, dtype=like.dtype, device=like.device).tril()
        else:
            self.read = decays(log_decay)
            self.start = log_decay.cumsum(-1).exp()
        self.has_velocity = log_momentum is not None
        if log_momentum is not None:
            self.velocity = decays(log_momentum)
            self.velocity_start = log_momentum.cumsum(-1).exp()
            moved, moved_start = self.velocity, self.velocity_start
            if valid is not None:
                moved, moved_start = valid[..., None] * moved, valid * moved_start
            kept = self.read
            self.read = torch.matmul(kept, moved)
            self.start_velocity = torch.matmul(kept, moved_start[..., None])[..., 0]

    def prediction(self, after_decay: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same for the memory that predicts at step t: weights of j < t, of M₀ and of S₀."""
        before, start = _shift(self.read, 0), self.start
        start_velocity = _shift(self.start_velocity[..., None], 0) if self.has_velocity else None
        if start is not None:
            start = _shift(start[..., None], 1)[..., 0]
        if start_velocity is not None:
            start_velocity = start_velocity[..., 0]
        if after_decay and self.log_decay is not None:
            decay = self.log_decay.exp()
            before = decay[..., None] * before
            start = self.start
            start_velocity = None if start_velocity is None else decay * start_velocity
        return before, start, start_velocity


def _shift(x: Tensor, first: float) -> Tensor:
    """Rows moved down by one."""
    return torch.cat([torch.full_like(x[..., :1, :], first), x[..., :-1, :]], -2)
