"""The delta rule with a decay of every key as Triton kernels: one walks forward, one back.

Names are those of `triton.py` beside this file. With U what a chunk's steps write and strict lower
parts of β P for L:

    U = (I + L)⁻¹ β (V − (e^γ K) M),  P_tj = Σ_k k_tk k_jk e^(γ_tk − γ_jk) for j < t,
    O = (e^γ Q) M + A U,  M' = e^(γ_C) M + (K e^(γ_C − γ))ᵀ U.

P is made by the same tree as A, of the same rounded keys: what they are rounded to still has length
1, so that the rule stays stable with correlated keys too, where I + L is ill-conditioned. The
inverse and its uses are those of `chunk_memory`'s kernels.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunk_gla.triton import _decay, _parted, _since_middle
from hypercrl_kernels.memory.chunk_memory.inverse_triton import inverse_of
from hypercrl_kernels.memory.chunks_triton import log_gates, refined, sequence_of, state_of


@triton.jit
def _pairs(
    queries, keys, gate, t,
    LEVELS: tl.constexpr, DOT: tl.constexpr, SOLVE: tl.constexpr,
):  # fmt: skip
    """A [C, C] with its diagonal, and P below the diagonal, zero elsewhere."""
    dtype = queries.dtype
    same = t[:, None] == t[None, :]
    scores = tl.where(same, tl.dot(queries, tl.trans(keys), input_precision=DOT), 0.0)
    alike = tl.zeros_like(scores)
    for level in tl.static_range(LEVELS):
        decay = _decay(_since_middle(t, level), gate, DOT)
        parted = _parted(t, level)
        lower = (keys * decay).to(dtype)
        part = tl.dot(lower, tl.trans(lower), input_precision=SOLVE)
        alike = tl.where(parted, part, alike)
        part = tl.dot((queries * decay).to(dtype), tl.trans(lower), input_precision=DOT)
        scores = tl.where(parted, part, scores)
    return scores, alike


@triton.jit(do_not_specialize=["length"])
def delta_forward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    beta,  # [B, T, H]
    initial,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    o,  # [B, T, H, V], written
    final,  # [N, H, K, V] float32, written
    states,  # [slots, H, K, V], written with SAVE: the state at each chunk's start
    inverse,  # (I + L)⁻¹ [slots, H, PARTS, C, C], written with SAVE
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
    PARTS: tl.constexpr,  # of the inverse: its rounding, then that of what is left
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    # As in `chunk_memory`'s kernels: no bias in L, and an inverse as exact as its dtype needs.
    SOLVE: tl.constexpr = "ieee" if DOT == "tf32x3" else DOT
    INVERT: tl.constexpr = "tf32x3" if dtype == tl.float16 else DOT
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
    square = i[:, None] * CHUNK + i[None, :]
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    for chunk in tl.range(0, tl.cdiv(steps, CHUNK), disable_licm=True):
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        inside = t < steps
        rows = inside[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        gate = log_gates(log_decay + first * KEYS + by_key, rows & in_keys)
        right = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        strength = tl.load(beta + first + i * HEADS, mask=inside, other=0.0).to(tl.float32)
        old = memory.to(dtype)
        if SAVE:
            tl.store(states + index * KEYS * VALUES + place, old, mask=in_state)
        scores, alike = _pairs(queries, keys, gate, t, LEVELS, DOT, SOLVE)
        lower = strength[:, None] * alike
        rest = inverse_of(lower, t, CHUNK, INVERT)
        since = _decay(t[:, None] >= t[None, :], gate, DOT)
        until = _decay(t[:, None] < t[None, :], gate, DOT)
        seen = tl.dot((keys * since).to(dtype), old, input_precision=DOT)
        known = (strength[:, None] * (right.to(tl.float32) - seen)).to(dtype)
        write = tl.zeros([CHUNK, BLOCK], tl.float32)
        for part in tl.static_range(PARTS):
            solve = rest.to(dtype)
            if SAVE and tl.program_id(0) == 0:
                at = (index * PARTS + part) * CHUNK * CHUNK
                tl.store(inverse + at + square, solve)
            write = tl.dot(solve, known, acc=write, input_precision=DOT)
            rest -= solve.to(tl.float32)
        if DOT == "tf32x3":
            write = refined(write, solve, lower, known, DOT)
        written = write.to(dtype)
        out = tl.dot((queries * since).to(dtype), old, input_precision=DOT)
        out += tl.dot(scores.to(dtype), written, input_precision=DOT)
        out = (scale * out).to(o.dtype.element_ty)
        tl.store(o + first * VALUES + by_value, out, mask=rows & in_values)
        memory *= tl.exp(tl.sum(gate.to(tl.float32), 0))[:, None]
        memory += tl.dot(tl.trans((keys * until).to(dtype)), written, input_precision=DOT)
    tl.store(final + here + place, memory, mask=in_state)


@triton.jit(do_not_specialize=["length"])
def delta_backward_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H, K]
    beta,  # [B, T, H]
    d_o,  # [B, T, H, V]
    d_final,  # [N, H, K, V] float32
    states,  # [slots, H, K, V]
    inverse,  # [slots, H, PARTS, C, C]
    cu_seqlens,  # [N + 1]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H, K]
    d_beta,  # [B, T, H] float32
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
    PARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    SOLVE: tl.constexpr = "ieee" if DOT == "tf32x3" else DOT  # as in the forward pass
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
    square = i[:, None] * CHUNK + i[None, :]
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    by_value = i[:, None] * (HEADS * VALUES) + value[None, :]
    chunks = tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
        chunk = chunks - 1 - back
        index = (slot + chunk) * HEADS + head
        first = (begin + chunk * CHUNK) * HEADS + head
        t = chunk * CHUNK + i
        inside = t < steps
        rows = inside[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        gate = log_gates(log_decay + first * KEYS + by_key, rows & in_keys)
        right = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        strength = tl.load(beta + first + i * HEADS, mask=inside, other=0.0).to(tl.float32)
        d_out = tl.load(d_o + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        d_out = (scale * d_out.to(tl.float32)).to(dtype)
        memory = tl.load(states + index * KEYS * VALUES + place, mask=in_state, other=0.0)
        later = d_memory.to(dtype)

        # What the steps wrote, and the gradient of it.
        scores, alike = _pairs(queries, keys, gate, t, LEVELS, DOT, SOLVE)
        since = _decay(t[:, None] >= t[None, :], gate, DOT)
        until = _decay(t[:, None] < t[None, :], gate, DOT)
        predicting = (keys * since).to(dtype)
        carried = (keys * until).to(dtype)
        right = right.to(tl.float32) - tl.dot(predicting, memory, input_precision=DOT)
        known = (strength[:, None] * right).to(dtype)
        d_write = tl.dot(tl.trans(scores.to(dtype)), d_out, input_precision=DOT)
        d_write += tl.dot(carried, later, input_precision=DOT)
        d_written = d_write.to(dtype)
        write = tl.zeros([CHUNK, BLOCK], tl.float32)
        d_known = write
        for part in tl.static_range(PARTS):
            solve = tl.load(inverse + (index * PARTS + part) * CHUNK * CHUNK + square)
            write = tl.dot(solve, known, acc=write, input_precision=DOT)
            d_known = tl.dot(tl.trans(solve), d_written, acc=d_known, input_precision=DOT)
        if DOT == "tf32x3":
            lower = strength[:, None] * alike
            write = refined(write, solve, lower, known, DOT)
            d_known = refined(d_known, tl.trans(solve), tl.trans(lower), d_written, DOT)
        written = write.to(dtype)
        d_lower = tl.dot(d_known.to(dtype), tl.trans(written), input_precision=DOT)
        d_lower = tl.where(t[:, None] > t[None, :], -d_lower, 0.0)
        d_strength = tl.sum(d_known * right, 1) + tl.sum(d_lower * alike, 1)
        tl.store(d_beta + first + i * HEADS, d_strength, mask=inside)
        d_alike = strength[:, None] * d_lower
        d_value = strength[:, None] * d_known
        mask = rows & in_values
        tl.store(d_v + first * VALUES + by_value, d_value.to(d_v.dtype.element_ty), mask=mask)
        d_predicted = d_value.to(dtype)
        d_scores = tl.dot(d_out, tl.trans(written), input_precision=DOT)

        # Through the memories at the chunk's two ends. The gradient of a decay is a sum over the
        # rows that it is in, without a difference of two that would cancel but for their rounding.
        from_start = tl.trans(memory)
        d_queries = since * tl.dot(d_out, from_start, input_precision=DOT)
        d_keys = -since * tl.dot(d_predicted, from_start, input_precision=DOT)
        moved = queries * d_queries + keys * d_keys
        steps_of = tl.where(t[:, None] <= t[None, :], 1.0, 0.0)
        d_gate = tl.dot(steps_of, moved, input_precision=DOT)
        to_end = until * tl.dot(written, tl.trans(later), input_precision=DOT)
        d_keys += to_end
        steps_of = tl.where(t[:, None] > t[None, :], 1.0, 0.0)
        d_gate += tl.dot(steps_of, keys * to_end, input_precision=DOT)
        whole = tl.exp(tl.sum(gate.to(tl.float32), 0))
        d_gate += (whole * tl.sum(memory.to(tl.float32) * d_memory, 1))[None, :]
        d_memory *= whole[:, None]
        reads = tl.trans((queries * since).to(dtype))
        d_memory += tl.dot(reads, d_out, input_precision=DOT)
        d_memory -= tl.dot(tl.trans(predicting), d_predicted, input_precision=DOT)

        # Through the pairs inside it.
        d_same = tl.sum(tl.where(t[:, None] == t[None, :], d_scores, 0.0), 1)[:, None]
        d_queries += d_same * keys
        d_keys += d_same * queries
        for level in tl.static_range(LEVELS):
            steps_of = _since_middle(t, level)
            parted = _parted(t, level)
            decay = _decay(steps_of, gate, DOT)
            upper = (queries * decay).to(dtype)
            lower = (keys * decay).to(dtype)
            d_part = tl.where(parted, d_scores, 0.0).to(dtype)
            d_upper = decay * tl.dot(d_part, lower, input_precision=DOT)
            d_lower = tl.dot(tl.trans(d_part), upper, input_precision=DOT)
            d_part = tl.where(parted, d_alike, 0.0)
            d_part = (d_part + tl.trans(d_part)).to(dtype)
            d_lower = tl.dot(d_part, lower, acc=d_lower, input_precision=DOT)
            d_lower *= decay
            d_queries += d_upper
            d_keys += d_lower
            moved = queries * d_upper + keys * d_lower
            steps_of = tl.trans(tl.where(steps_of, 1.0, 0.0))
            d_gate += tl.dot(steps_of, moved, input_precision=DOT)
        mask = rows & in_keys
        tl.store(d_q + first * KEYS + by_key, d_queries.to(d_q.dtype.element_ty), mask=mask)
        tl.store(d_k + first * KEYS + by_key, d_keys.to(d_k.dtype.element_ty), mask=mask)
        tl.store(d_decay + first * KEYS + by_key, d_gate.to(d_decay.dtype.element_ty), mask=mask)
    if STARTS:
        tl.store(d_initial + here + place, d_memory, mask=in_state)
