"""Gated linear attention as Triton kernels: one walks forward through a sequence, one back.

With M the memory at the start of a chunk, γ the cumulative log decay inside it and C its last step:

    O = (e^γ Q) M + A V,  A_tj = Σ_k q_tk k_jk e^(γ_tk − γ_jk) for j ≤ t,
    M' = e^(γ_C) M + (K e^(γ_C − γ))ᵀ V.

A is a sum over the levels of a binary tree: steps t > j part in a block of 2n rows at its middle
row m, t in the upper half and j in the lower, and e^(γ_t − γ_m) and e^(γ_m − γ_j) are both at most
one. Each level is one matrix product, and so is each sum of decays, over its own steps alone: no
decay is ever divided by another.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import log_gates, sequence_of, state_of


@triton.jit
def _decay(steps, gate, DOT: tl.constexpr):
    """e to the sums of gates [C, K] over the steps of a mask [C, C]."""
    total = tl.dot(tl.where(steps, 1.0, 0.0).to(gate.dtype), gate, input_precision=DOT)
    return tl.exp2(1.4426950408889634 * total)


@triton.jit
def _since_middle(t, level: tl.constexpr):
    """Of each row, the steps between it and the middle of its block of 2 << level rows [C, C]."""
    row = t[:, None]
    step = t[None, :]
    middle = ((row >> level) | 1) << level
    return ((step > middle) & (step <= row)) | ((step > row) & (step <= middle))


@triton.jit
def _parted(t, level: tl.constexpr):
    """Pairs of rows that this level parts [C, C]."""
    row = t[:, None]
    column = t[None, :]
    return (row > column) & (((row >> level) ^ (column >> level)) == 1)


@triton.jit(do_not_specialize=["length"])
def gla_forward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    initial,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    o,  # [B, T, H, V], written
    final,  # [N, H, K, V] float32, written
    states,  # [slots, H, K, V], written with SAVE: the state at each chunk's start
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of values, one program's
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,  # log₂ CHUNK
    STARTS: tl.constexpr,  # from an initial state, else from zeros
    SAVE: tl.constexpr,
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(1), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    here = (segment * HEADS + head) * KEYS * VALUES
    memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    if STARTS:
        memory = tl.load(initial + here + place, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    for chunk in tl.range(0, tl.cdiv(steps, CHUNK), disable_licm=True):
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        rows = (t < steps)[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        gate = log_gates(log_decay + first * KEYS + by_key, rows & in_keys)
        values = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        old = memory.to(dtype)
        if SAVE:
            tl.store(states + index * KEYS * VALUES + place, old, mask=in_state)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT)
        scores = tl.where(t[:, None] == t[None, :], scores, 0.0)
        for level in tl.static_range(LEVELS):
            decay = _decay(_since_middle(t, level), gate, DOT)
            upper = (queries * decay).to(dtype)
            lower = (keys * decay).to(dtype)
            part = tl.dot(upper, tl.trans(lower), input_precision=DOT)
            scores = tl.where(_parted(t, level), part, scores)
        since = _decay(t[:, None] >= t[None, :], gate, DOT)
        until = _decay(t[:, None] < t[None, :], gate, DOT)
        out = tl.dot((queries * since).to(dtype), old, input_precision=DOT)
        out += tl.dot(scores.to(dtype), values, input_precision=DOT)
        out = (scale * out).to(o.dtype.element_ty)
        tl.store(o + first * VALUES + by_value, out, mask=rows & in_values)
        memory *= tl.exp(tl.sum(gate.to(tl.float32), 0))[:, None]
        memory += tl.dot(tl.trans((keys * until).to(dtype)), values, input_precision=DOT)
    tl.store(final + here + place, memory, mask=in_state)


@triton.jit(do_not_specialize=["length"])
def gla_backward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    d_o,  # [B, T, H, V]
    d_final,  # [N, H, K, V] float32
    states,  # [slots, H, K, V]
    cu_seqlens,  # [N + 1]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H, K]
    d_initial,  # [N, H, K, V] float32
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # V, padded
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, which has a gradient
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(0), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    here = (segment * HEADS + head) * KEYS * VALUES
    d_memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    if ENDS:
        d_memory = tl.load(d_final + here + place, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    chunks = tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
        chunk = chunks - 1 - back
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        same = t[:, None] == t[None, :]
        rows = (t < steps)[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        gate = log_gates(log_decay + first * KEYS + by_key, rows & in_keys)
        values = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        d_out = tl.load(d_o + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        d_out = (scale * d_out.to(tl.float32)).to(dtype)
        memory = tl.load(states + index * KEYS * VALUES + place, mask=in_state, other=0.0)
        later = d_memory.to(dtype)

        # Through the memories at the chunk's two ends.
        since = _decay(t[:, None] >= t[None, :], gate, DOT)
        until = _decay(t[:, None] < t[None, :], gate, DOT)
        d_queries = since * tl.dot(d_out, tl.trans(memory), input_precision=DOT)
        d_keys = until * tl.dot(values, tl.trans(later), input_precision=DOT)
        d_values = tl.dot((keys * until).to(dtype), later, input_precision=DOT)
        whole = tl.exp(tl.sum(gate.to(tl.float32), 0))
        at_end = tl.sum(keys * d_keys, 0)
        at_end += whole * tl.sum(memory.to(tl.float32) * d_memory, 1)
        d_memory *= whole[:, None]
        reads = tl.trans((queries * since).to(dtype))
        d_memory += tl.dot(reads, d_out, input_precision=DOT)

        # Through the scores inside it.
        d_scores = tl.dot(d_out, tl.trans(values), input_precision=DOT)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT)
        scores = tl.where(same, scores, 0.0)
        d_same = tl.sum(tl.where(same, d_scores, 0.0), 1)[:, None]
        d_queries += d_same * keys
        d_keys += d_same * queries
        for level in tl.static_range(LEVELS):
            decay = _decay(_since_middle(t, level), gate, DOT)
            upper = (queries * decay).to(dtype)
            lower = (keys * decay).to(dtype)
            part = tl.dot(upper, tl.trans(lower), input_precision=DOT)
            scores = tl.where(_parted(t, level), part, scores)
            d_part = tl.where(_parted(t, level), d_scores, 0.0).to(dtype)
            d_queries += decay * tl.dot(d_part, lower, input_precision=DOT)
            d_keys += decay * tl.dot(tl.trans(d_part), upper, input_precision=DOT)
        d_values += tl.dot(tl.trans(scores.to(dtype)), d_out, input_precision=DOT)
        mask = rows & in_values
        tl.store(d_v + first * VALUES + by_value, d_values.to(d_v.dtype.element_ty), mask=mask)
        mask = rows & in_keys
        tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=mask)
        tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=mask)
        # The sum of decays up to t scales what a query takes and divides what a key leaves.
        d_sum = queries * d_queries - keys * d_keys
        d_sum += tl.where((t % CHUNK == CHUNK - 1)[:, None], at_end[None, :], 0.0)
        later_steps = tl.where(t[:, None] <= t[None, :], 1.0, 0.0)
        d_gate = tl.dot(later_steps, d_sum, input_precision=DOT)
        tl.store(d_decay + first * KEYS + by_key, d_gate.to(d_decay.dtype.element_ty), mask=mask)
    if STARTS:
        tl.store(d_initial + here + place, d_memory, mask=in_state)
