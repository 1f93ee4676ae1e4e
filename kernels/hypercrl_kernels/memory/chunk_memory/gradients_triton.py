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


@triton.jit(do_not_specialize=["length", "segments"])
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
    d_decay,  # [B, T, H] float32
    d_beta,  # [B, T, H] float32
    scale,
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
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
        tl.program_id(0), cu_seqlens, length, segments, HEADS, CHUNK, VARLEN, SEARCH
    )
    if chunk * CHUNK >= steps:
        return
    index = slot * HEADS + head
    first = (begin + chunk * CHUNK) * HEADS + head
    i = tl.arange(0, CHUNK)
    inside = i < CHUNK if WHOLE else chunk * CHUNK + i < steps
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, BLOCK)
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    by_state = unit[:, None] * VALUES + value[None, :]
    in_keys = inside[:, None] & (unit < KEYS)[None, :]
    row = first * VALUES
    state = index * KEYS * VALUES

    # Through what is read and what is predicted inside the chunk.
    written = tl.zeros([CHUNK, CHUNK], tl.float32)
    corrected = written
    from_start = tl.zeros([CHUNK, WIDTH], tl.float32)
    for v in tl.range(0, VALUES, BLOCK):
        mask = inside[:, None] & (v + value < VALUES)[None, :]
        in_state = (unit < KEYS)[:, None] & (v + value < VALUES)[None, :]
        d_out = tl.load(d_o + row + v + by_value, mask=mask, other=0.0)
        error = tl.load(errors + row + v + by_value, mask=mask, other=0.0)
        d_value = tl.load(d_v + row + v + by_value, mask=mask, other=0.0)
        memory = tl.load(states + state + v + by_state, mask=in_state, other=0.0)
        written = tl.dot(d_out, tl.trans(error), acc=written, input_precision=DOT)
        corrected = tl.dot(d_value, tl.trans(error), acc=corrected, input_precision=DOT)
        from_start = tl.dot(d_out, tl.trans(memory), acc=from_start, input_precision=DOT)
    high, before, a, r, c, last, strength = rows_of(
        sums, beta, index * CHUNK, first + i * HEADS, i, inside,
        CHUNK, DECAY, STRENGTH, BEFORE,
    )  # fmt: skip
    keys = tl.load(k + first * KEYS + by_key, mask=in_keys, other=0.0)
    queries = tl.load(q + first * KEYS + by_key, mask=in_keys, other=0.0)
    now = i[:, None] >= i[None, :]
    earlier = i[:, None] > i[None, :]
    if DECAY:
        written *= tl.exp2(tl.where(now, high[:, None] - high[None, :], float("-inf")))
        corrected *= tl.exp2(tl.where(earlier, before[:, None] - high[None, :], float("-inf")))
    else:
        written = tl.where(now, written, 0.0)
        corrected = tl.where(earlier, corrected, 0.0)
    written *= scale
    pairs = written * tl.dot(queries, tl.trans(keys), input_precision=DOT)
    predicted = corrected * tl.dot(keys, tl.trans(keys), input_precision=DOT)
    d_strength = tl.sum(pairs - predicted, 0)
    by_row = tl.sum((pairs - predicted) * strength[None, :], 1)
    early = -tl.sum(predicted * strength[None, :], 1)
    d_queries = (scale * a)[:, None] * from_start
    d_a = tl.sum(queries * d_queries, 1)
    weighted = (written * strength[None, :]).to(dtype)
    d_queries = tl.dot(weighted, keys, acc=d_queries, input_precision=DOT)
    tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=in_keys)
    corrected *= strength[None, :]
    alike = (-corrected - tl.trans(corrected)).to(dtype)
    # Two sums: one product that goes on from the other would be made twice, by each half of warps.
    d_keys = tl.dot(tl.trans(weighted), queries, input_precision=DOT)
    d_keys += tl.dot(alike, keys, input_precision=DOT)

    # Through the memories at the chunk's two ends.
    to_end = tl.zeros([CHUNK, WIDTH], tl.float32)
    predicts = tl.zeros([CHUNK, WIDTH], tl.float32)
    fades = tl.zeros([WIDTH], tl.float32)
    for v in tl.range(0, VALUES, BLOCK):
        mask = inside[:, None] & (v + value < VALUES)[None, :]
        in_state = (unit < KEYS)[:, None] & (v + value < VALUES)[None, :]
        error = tl.load(errors + row + v + by_value, mask=mask, other=0.0)
        d_value = tl.load(d_v + row + v + by_value, mask=mask, other=0.0)
        memory = tl.load(states + state + v + by_state, mask=in_state, other=0.0)
        later = tl.load(d_states + state + v + by_state, mask=in_state, other=0.0)
        to_end = tl.dot(error, tl.trans(later), acc=to_end, input_precision=DOT)
        predicts = tl.dot(d_value, tl.trans(memory), acc=predicts, input_precision=DOT)
        if DECAY:
            fades += tl.sum(memory.to(tl.float32) * later, 1)
    to_end *= c[:, None]
    predicts *= r[:, None]
    d_c = tl.sum(keys * to_end, 1)
    d_strength += d_c
    d_keys += strength[:, None] * to_end - predicts
    tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=in_keys)
    if STRENGTH:
        tl.store(d_beta + first + i * HEADS, d_strength, mask=inside)
    if DECAY:
        d_r = tl.sum(keys * predicts, 1)
        d_sum = by_row + d_a - d_r - strength * d_strength
        at_end = tl.sum(strength * d_c, 0) + last * tl.sum(fades, 0)
        d_sum += tl.where(i == CHUNK - 1, at_end, 0.0)
        by_decay = tl.cumsum(d_sum, 0, reverse=True)
        if BEFORE:
            by_decay -= early - d_r
        tl.store(d_decay + first + i * HEADS, by_decay, mask=inside)
