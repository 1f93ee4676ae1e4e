"""The delta rules' gradients of queries, keys and gates, of all chunks at once.

The third part of the backward pass that `walk_triton.py` begins: from the states M at the chunks'
starts, the gradients ∂M' of those at their ends, E and ∂V. With N = ∂O Eᵀ∘G and Z = −(∂V Eᵀ)∘P,
X = E ∂M'ᵀ and Y = ∂V Mᵀ,

    ∂Q = N β K + a ∂O Mᵀ,  ∂K = (N β)ᵀ Q + (Z β + (Z β)ᵀ) K + c β X − r Y,

where β scales columns. With W = N∘QKᵀ + Z∘KKᵀ, ∂β = Σ_t W_tj + c k·X in each column, and the sum of
log decays up to a step has the gradient Σ_j W_tj β_j + a q·∂O Mᵀ − r k·Y − β ∂β.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunk_memory.walk_triton import rows_of
from hypercrl_kernels.memory.chunks_triton import chunk_of


@triton.jit(do_not_specialize=["length", "segments", "total"])
def gradients_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    beta,  # [B, T, H]
    d_o,  # [B, T, H, V]
    d_v,  # [B, T, H, V]
    cu_seqlens,  # [N + 1]
    sums,  # of log decays [slots, H, C] float32
    states,  # M [slots, H, K, V]
    d_states,  # ∂M' [slots, H, K, V]
    errors,  # E [B, T, H, V]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_decay,  # [blocks of keys, B, T, H] float32, each with its block's share
    d_beta,  # [blocks of keys, B, T, H] float32
    scale,
    length,
    segments,
    total,  # B T
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # of keys, one program's
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of values, taken at once
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    BEFORE: tl.constexpr,
    VARLEN: tl.constexpr,
    WHOLE: tl.constexpr,  # all chunks are, so that no row needs a mask
    SEARCH: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    slot, head, begin, steps, chunk = chunk_of(
        tl.program_id(1), cu_seqlens, length, segments, HEADS, CHUNK, VARLEN, SEARCH
    )
    if chunk * CHUNK >= steps:
        return
    index = slot * HEADS + head
    first = (begin + chunk * CHUNK) * HEADS + head
    i = tl.arange(0, CHUNK)
    inside = i < CHUNK if WHOLE else chunk * CHUNK + i < steps
    unit = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    value = tl.arange(0, BLOCK)
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    by_state = unit[:, None] * VALUES + value[None, :]
    in_keys = inside[:, None] & (unit < KEYS)[None, :]
    row = first * VALUES
    state = index * KEYS * VALUES

    high, before, a, r, c, last, strength = rows_of(
        sums, beta, index * CHUNK, first + i * HEADS, i, inside,
        CHUNK, DECAY, STRENGTH, BEFORE,
    )  # fmt: skip

    # Through what is read and what is predicted inside the chunk.
    written = tl.zeros([CHUNK, CHUNK], tl.float32)
    corrected = tl.zeros([CHUNK, CHUNK], tl.float32)
    d_queries = tl.zeros([CHUNK, WIDTH], tl.float32)
    for v in tl.range(0, VALUES, BLOCK):
        mask = inside[:, None] & (v + value < VALUES)[None, :]
        in_state = (unit < KEYS)[:, None] & (v + value < VALUES)[None, :]
        d_out = tl.load(d_o + row + v + by_value, mask=mask, other=0.0)
        error = tl.load(errors + row + v + by_value, mask=mask, other=0.0)
        d_value = tl.load(d_v + row + v + by_value, mask=mask, other=0.0)
        memory = tl.load(states + state + v + by_state, mask=in_state, other=0.0)
        written = tl.dot(d_out, tl.trans(error), acc=written, input_precision=DOT)
        corrected = tl.dot(d_value, tl.trans(error), acc=corrected, input_precision=DOT)
        d_queries = tl.dot(d_out, tl.trans(memory), acc=d_queries, input_precision=DOT)
    keys = tl.load(k + first * KEYS + by_key, mask=in_keys, other=0.0)
    queries = tl.load(q + first * KEYS + by_key, mask=in_keys, other=0.0)
    d_queries *= (scale * a)[:, None]
    d_sum = tl.sum(queries * d_queries, 1)
    written *= scale
    now = i[:, None] >= i[None, :]
    earlier = i[:, None] > i[None, :]
    if DECAY:
        written *= tl.exp2(tl.where(now, high[:, None] - high[None, :], float("-inf")))
        corrected *= tl.exp2(tl.where(earlier, before[:, None] - high[None, :], float("-inf")))
    else:
        written = tl.where(now, written, 0.0)
        corrected = tl.where(earlier, corrected, 0.0)
    weighted = (written * strength[None, :]).to(dtype)
    alike = corrected * strength[None, :]
    alike = (-alike - tl.trans(alike)).to(dtype)
    d_queries = tl.dot(weighted, keys, acc=d_queries, input_precision=DOT)
    tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=in_keys)
    written *= tl.dot(queries, tl.trans(keys), input_precision=DOT)
    corrected *= tl.dot(keys, tl.trans(keys), input_precision=DOT)
    early = -tl.sum(corrected * strength[None, :], 1)
    d_sum += tl.sum(written * strength[None, :], 1)
    d_strength = tl.sum(written - corrected, 0)
    d_keys = tl.dot(tl.trans(weighted), queries, input_precision=DOT)
    d_keys += tl.dot(alike, keys, input_precision=DOT)

    # Through the memories at the chunk's two ends.
    to_end = tl.zeros([CHUNK, WIDTH], tl.float32)
    predicts = tl.zeros([CHUNK, WIDTH], tl.float32)
    at_end = 0.0
    for v in tl.range(0, VALUES, BLOCK):
        mask = inside[:, None] & (v + value < VALUES)[None, :]
        in_state = (unit < KEYS)[:, None] & (v + value < VALUES)[None, :]
        error = tl.load(errors + row + v + by_value, mask=mask, other=0.0)
        d_value = tl.load(d_v + row + v + by_value, mask=mask, other=0.0)
        memory = tl.load(states + state + v + by_state, mask=in_state, other=0.0)
        later = tl.load(d_states + state + v + by_state, mask=in_state, other=0.0)
        if DECAY:
            at_end += last * tl.sum(memory.to(tl.float32) * later)
        to_end = tl.dot(error, tl.trans(later), acc=to_end, input_precision=DOT)
        predicts = tl.dot(d_value, tl.trans(memory), acc=predicts, input_precision=DOT)
    to_end *= c[:, None]
    predicts *= r[:, None]
    d_c = tl.sum(keys * to_end, 1)
    early -= tl.sum(keys * predicts, 1)
    d_strength += d_c
    d_keys += strength[:, None] * to_end - predicts
    tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=in_keys)
    gates = tl.program_id(0).to(tl.int64) * total * HEADS + first + i * HEADS
    if STRENGTH:
        tl.store(d_beta + gates, d_strength, mask=inside)
    if DECAY:
        d_sum += early - strength * d_strength
        at_end += tl.sum(strength * d_c, 0)
        d_sum += tl.where(i == CHUNK - 1, at_end, 0.0)
        by_decay = tl.cumsum(d_sum, 0, reverse=True)
        if BEFORE:
            by_decay -= early
        tl.store(d_decay + gates, by_decay, mask=inside)
