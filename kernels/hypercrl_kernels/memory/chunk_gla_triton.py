"""Gated linear attention as Triton kernels, two for the forward pass, two for the backward.

With M the memory at the start of a chunk, γ the cumulative log decay inside it and C its last step:

    O = (e^γ Q) M + A V,  A_tj = Σ_k q_tk k_jk e^(γ_tk − γ_jk) for j ≤ t,
    M' = e^(γ_C) M + (K e^(γ_C − γ))ᵀ V.

A is a sum over the levels of a binary tree: steps t > j part in a block of 2n rows at its middle
row m, t in the upper half and j in the lower, and e^(γ_t − γ_m) and e^(γ_m − γ_j) are both at most
one. Each level is one matrix product, and no decay is ever divided by another.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import chunk_of, segment_of


@triton.jit
def _halves(gate, following, level: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr):
    """Decay since the first row of the own half [C, K], and until the first row of the next.

    Each is a sum over its own terms, at most zero; `following` is the gate of the next step.
    """
    rows: tl.constexpr = 1 << level
    blocks: tl.constexpr = CHUNK // rows
    first = (tl.arange(0, rows) == 0)[None, :, None]
    since = tl.where(first, 0.0, tl.reshape(gate, [blocks, rows, WIDTH]))
    since = tl.cumsum(since, 1)
    until = tl.cumsum(tl.reshape(following, [blocks, rows, WIDTH]), 1, reverse=True)
    since = tl.exp(tl.reshape(since, [CHUNK, WIDTH]))
    until = tl.exp(tl.reshape(until, [CHUNK, WIDTH]))
    return since, until


@triton.jit
def _parted(level: tl.constexpr, CHUNK: tl.constexpr):
    """Pairs t > j that this level parts."""
    row = tl.arange(0, CHUNK)[:, None]
    column = tl.arange(0, CHUNK)[None, :]
    return (row > column) & (((row >> level) ^ (column >> level)) == 1)


@triton.jit(do_not_specialize=["length", "segments"])
def gla_prepare_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    log_decay,  # [B, T, H, K]
    cu_seqlens,  # [N + 1]
    reading,  # A [slots, H, C, C], written
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
    VARLEN: tl.constexpr,
    SEARCH: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    slot = tl.program_id(0)
    head = tl.program_id(1)
    begin, steps, chunk = chunk_of(cu_seqlens, slot, length, segments, CHUNK, VARLEN, SEARCH)
    i = tl.arange(0, CHUNK)
    t = chunk * CHUNK + i
    if chunk * CHUNK < steps:
        unit = tl.arange(0, WIDTH)
        block = ((begin + t) * HEADS + head)[:, None] * KEYS + unit[None, :]
        mask = (t < steps)[:, None] & (unit < KEYS)[None, :]
        later = mask & (t + 1 < steps)[:, None]
        queries = tl.load(q + block, mask=mask, other=0.0)
        keys = tl.load(k + block, mask=mask, other=0.0)
        gate = tl.load(log_decay + block, mask=mask, other=0.0).to(tl.float32)
        following = tl.load(log_decay + block + HEADS * KEYS, mask=later, other=0.0)
        following = following.to(tl.float32)
        scores = tl.sum(queries.to(tl.float32) * keys.to(tl.float32), 1)
        scores = tl.where(i[:, None] == i[None, :], scores[:, None], 0.0)
        for level in tl.static_range(LEVELS):
            since, until = _halves(gate, following, level, CHUNK, WIDTH)
            left = (queries * since).to(dtype)
            right = (keys * until).to(dtype)
            product = tl.dot(left, tl.trans(right), input_precision=DOT)
            scores += tl.where(_parted(level, CHUNK), product, 0.0)
        index = slot.to(tl.int64) * HEADS + head
        square = index * CHUNK * CHUNK + i[:, None] * CHUNK + i[None, :]
        tl.store(reading + square, scores.to(dtype))


@triton.jit
def _chunk_decays(log_decay, block, mask, later, step: tl.constexpr):
    """e^γ from the chunk's start and e^(γ_C − γ) to its end [C, K], and e^(γ_C) [K]."""
    gate = tl.load(log_decay + block, mask=mask, other=0.0).to(tl.float32)
    following = tl.load(log_decay + block + step, mask=later, other=0.0).to(tl.float32)
    since = tl.exp(tl.cumsum(gate, 0))
    until = tl.exp(tl.cumsum(following, 0, reverse=True))
    return since, until, tl.exp(tl.sum(gate, 0))


@triton.jit(do_not_specialize=["length"])
def gla_walk_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    reading,  # [slots, H, C, C]
    initial,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    o,  # [B, T, H, V], written
    final,  # [N, H, K, V] float32, written
    states,  # [slots, H, K, V], written: the state at each chunk's start
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    STARTS: tl.constexpr,
    SAVE: tl.constexpr,
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, segment, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    place = unit[:, None] * VALUES + value[None, :]
    here = (segment * HEADS + head) * KEYS * VALUES + place
    memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    if STARTS:
        memory = tl.load(initial + here, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    square = i[:, None] * CHUNK + i[None, :]
    for chunk in range(0, tl.cdiv(steps, CHUNK)):
        index = (slot + chunk) * HEADS + head
        t = chunk * CHUNK + i
        inside = (t < steps)[:, None]
        at = ((begin + t) * HEADS + head)[:, None]
        block = at * KEYS + unit[None, :]
        later = (t + 1 < steps)[:, None] & (i < CHUNK - 1)[:, None] & in_keys
        mask = inside & in_keys
        queries = tl.load(q + block, mask=mask, other=0.0)
        keys = tl.load(k + block, mask=mask, other=0.0)
        write = tl.load(v + at * VALUES + value[None, :], mask=inside & in_values, other=0.0)
        since, until, kept = _chunk_decays(log_decay, block, mask, later, HEADS * KEYS)
        score = tl.load(reading + index * CHUNK * CHUNK + square)
        old = memory.to(dtype)
        if SAVE:
            tl.store(states + index * KEYS * VALUES + place, old, mask=in_state)
        out = tl.dot((queries * since).to(dtype), old, input_precision=DOT)
        out += tl.dot(score, write, input_precision=DOT)
        tl.store(
            o + at * VALUES + value[None, :],
            (scale * out).to(o.dtype.element_ty),
            mask=inside & in_values,
        )
        memory *= kept[:, None]
        memory += tl.dot(tl.trans((keys * until).to(dtype)), write, input_precision=DOT)
    tl.store(final + here, memory, mask=in_state)


@triton.jit(do_not_specialize=["length"])
def gla_walk_back_kernel(
    q,  # [B, T, H, K]
    log_decay,  # [B, T, H, K]
    d_o,  # [B, T, H, V]
    d_final,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    d_initial,  # [N, H, K, V] float32, written
    d_states,  # [slots, H, K, V], written: of the state at each chunk's end
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    STARTS: tl.constexpr,
    ENDS: tl.constexpr,
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, segment, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    place = unit[:, None] * VALUES + value[None, :]
    here = (segment * HEADS + head) * KEYS * VALUES + place
    d_memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    if ENDS:
        d_memory = tl.load(d_final + here, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    chunks = tl.cdiv(steps, CHUNK)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        index = (slot + chunk) * HEADS + head
        t = chunk * CHUNK + i
        inside = (t < steps)[:, None]
        at = ((begin + t) * HEADS + head)[:, None]
        block = at * KEYS + unit[None, :]
        mask = inside & in_keys
        queries = tl.load(q + block, mask=mask, other=0.0)
        gate = tl.load(log_decay + block, mask=mask, other=0.0).to(tl.float32)
        d_out = tl.load(d_o + at * VALUES + value[None, :], mask=inside & in_values, other=0.0)
        d_out = (scale * d_out).to(dtype)
        tl.store(d_states + index * KEYS * VALUES + place, d_memory.to(dtype), mask=in_state)
        reads = (queries * tl.exp(tl.cumsum(gate, 0))).to(dtype)
        d_memory *= tl.exp(tl.sum(gate, 0))[:, None]
        d_memory += tl.dot(tl.trans(reads), d_out, input_precision=DOT)
    if STARTS:
        tl.store(d_initial + here, d_memory, mask=in_state)


@triton.jit(do_not_specialize=["length", "segments"])
def gla_finish_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    d_o,  # [B, T, H, V]
    reading,  # [slots, H, C, C]
    states,  # [slots, H, K, V]
    d_states,  # [slots, H, K, V]
    cu_seqlens,  # [N + 1]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H, K] float32
    scale,
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
    VARLEN: tl.constexpr,
    SEARCH: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    slot = tl.program_id(0)
    head = tl.program_id(1)
    begin, steps, chunk = chunk_of(cu_seqlens, slot, length, segments, CHUNK, VARLEN, SEARCH)
    i = tl.arange(0, CHUNK)
    t = chunk * CHUNK + i
    inside = (t < steps)[:, None]
    if chunk * CHUNK < steps:
        index = slot.to(tl.int64) * HEADS + head
        unit = tl.arange(0, WIDTH)
        at = ((begin + t) * HEADS + head)[:, None]
        block = at * KEYS + unit[None, :]
        in_keys = (unit < KEYS)[None, :]
        mask = inside & in_keys
        queries = tl.load(q + block, mask=mask, other=0.0)
        keys = tl.load(k + block, mask=mask, other=0.0)
        later = (t + 1 < steps)[:, None] & (i < CHUNK - 1)[:, None] & in_keys
        since, until, kept = _chunk_decays(log_decay, block, mask, later, HEADS * KEYS)
        square = index * CHUNK * CHUNK + i[:, None] * CHUNK + i[None, :]
        score = tl.load(reading + square)
        carried = (keys * until).to(dtype)
        d_scores = tl.zeros([CHUNK, CHUNK], tl.float32)
        d_reads = tl.zeros([CHUNK, WIDTH], tl.float32)
        d_carried = tl.zeros([CHUNK, WIDTH], tl.float32)
        d_kept = tl.zeros([WIDTH], tl.float32)
        for start in range(0, VALUES, BLOCK):
            value = start + tl.arange(0, BLOCK)
            in_values = (value < VALUES)[None, :]
            wide = at * VALUES + value[None, :]
            wide_mask = inside & in_values
            place = index * KEYS * VALUES + unit[:, None] * VALUES + value[None, :]
            in_state = (unit < KEYS)[:, None] & in_values
            memory = tl.load(states + place, mask=in_state, other=0.0)
            d_memory = tl.load(d_states + place, mask=in_state, other=0.0)
            write = tl.load(v + wide, mask=wide_mask, other=0.0)
            d_out = tl.load(d_o + wide, mask=wide_mask, other=0.0)
            d_out = (scale * d_out).to(dtype)
            d_write = tl.dot(tl.trans(score), d_out, input_precision=DOT)
            d_write += tl.dot(carried, d_memory, input_precision=DOT)
            tl.store(d_v + wide, d_write.to(d_v.dtype.element_ty), mask=wide_mask)
            d_scores += tl.dot(d_out, tl.trans(write), input_precision=DOT)
            d_reads += tl.dot(d_out, tl.trans(memory), input_precision=DOT)
            d_carried += tl.dot(write, tl.trans(d_memory), input_precision=DOT)
            d_kept += tl.sum(memory.to(tl.float32) * d_memory.to(tl.float32), 1)

        # Through decays: of a product of e^γ the gradient is the product times its gradient.
        d_queries = since * d_reads
        d_keys = until * d_carried
        total = queries * d_queries - keys * d_keys
        end = tl.sum(keys * d_keys, 0) + kept * d_kept
        gate = tl.load(log_decay + block, mask=mask, other=0.0).to(tl.float32)
        following = tl.load(log_decay + block + HEADS * KEYS, mask=later, other=0.0).to(tl.float32)
        for level in tl.static_range(LEVELS):
            since, until = _halves(gate, following, level, CHUNK, WIDTH)
            part = tl.where(_parted(level, CHUNK), d_scores, 0.0).to(dtype)
            left = since * tl.dot(part, (keys * until).to(dtype), input_precision=DOT)
            reads = (queries * since).to(dtype)
            right = until * tl.dot(tl.trans(part), reads, input_precision=DOT)
            d_queries += left
            d_keys += right
            total += queries * left - keys * right
        same = tl.sum(tl.where(i[:, None] == i[None, :], d_scores, 0.0), 1)[:, None]
        d_queries += same * keys
        d_keys += same * queries
        tl.store(d_q + block, d_queries.to(d_q.dtype.element_ty), mask=mask)
        tl.store(d_k + block, d_keys.to(d_k.dtype.element_ty), mask=mask)
        total = tl.cumsum(total, 0, reverse=True) + end[None, :]
        tl.store(d_decay + block, total.to(d_decay.dtype.element_ty), mask=mask)
