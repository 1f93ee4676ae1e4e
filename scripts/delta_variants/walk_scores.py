"""The delta rules cut into four kernels: the two that walk through a sequence.

What the fused kernels hold in registers at once spills where heads are wide. Here all that needs no
state is out of the walks: (I + L)⁻¹ is made for all chunks at once before (`inverse_kernel`), the
gradients of queries, keys and gates for all at once after (`gradients_triton.py`). With M the
memory at the start of a chunk, T = (I + KKᵀ∘P β)⁻¹, A = QKᵀ∘G β and the row vectors a, r, c of
`forward_triton.py`, a walk forward is

    E = T (V − r KM),  O = a QM + A E,  M' = a_C M + (c β K)ᵀ E,

where β E is what is written, U; and a walk back

    ∂V = Tᵀ (Aᵀ ∂O + c β K ∂M'),  ∂M = a_C ∂M' + (a Q)ᵀ ∂O − (r K)ᵀ ∂V.

No column of V or M needs another one: a program takes a block of them.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import sequence_of, state_of


@triton.jit
def rows_of(
    sums, beta, at_chunk, at, i, inside,
    CHUNK: tl.constexpr, DECAY: tl.constexpr, STRENGTH: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """Of a chunk: the sums of log decays, those that a prediction sees, a, r, c [C], the last a,
    and write strength."""
    high = tl.zeros([CHUNK], tl.float32)
    before = high
    a = high + 1.0
    r = a
    c = a
    last = 1.0
    if DECAY:
        high = tl.load(sums + at_chunk + i)
        end = tl.load(sums + at_chunk + CHUNK - 1)
        before = high
        if BEFORE:
            before = tl.load(sums + at_chunk + i - 1, mask=i > 0, other=0.0)
        a = tl.exp2(high)
        r = tl.exp2(before)
        c = tl.exp2(end - high)
        last = tl.exp2(end)
    strength = tl.where(inside, 1.0, 0.0)
    if STRENGTH:
        strength = tl.load(beta + at, mask=inside, other=0.0).to(tl.float32)
    return high, before, a, r, c, last, strength


@triton.jit
def solved(inverse, right, PARTS: tl.constexpr, TRANSPOSED: tl.constexpr, DOT: tl.constexpr):
    """T right, or Tᵀ right; T as the sum of PARTS numbers of the dtype of `right`."""
    x = tl.zeros(right.shape, tl.float32)
    rest = inverse.to(tl.float32)
    for _ in tl.static_range(PARTS):
        if right.dtype == tl.bfloat16:  # cut off: rounding takes eight times the cycles
            upper = rest.to(tl.int32, bitcast=True) & -65536
            part = upper.to(tl.float32, bitcast=True)
        else:
            part = rest.to(right.dtype).to(tl.float32)
        rest -= part
        part = part.to(right.dtype)
        if TRANSPOSED:
            part = tl.trans(part)
        x = tl.dot(part, right, acc=x, input_precision=DOT)
    return x


@triton.jit(do_not_specialize=["length"])
def walk_scores_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    beta,  # [B, T, H]
    initial,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    inverse,  # T [slots, H, C, C]
    sums,  # of log decays [slots, H, C] float32
    scores,  # scale QKᵀ∘G β [slots, H, C, C], or None
    o,  # [B, T, H, V], written
    final,  # [N, H, K, V] float32, written
    states,  # M [slots, H, K, V], written with SAVE
    errors,  # E [B, T, H, V], written with SAVE
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of values, one program's
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    BEFORE: tl.constexpr,  # the error before decay, else after
    STARTS: tl.constexpr,  # from an initial state, else from zeros
    SAVE: tl.constexpr,
    GIVEN: tl.constexpr,  # scores are read, else made, and written if they are kept
    VARLEN: tl.constexpr,
    WHOLE: tl.constexpr,  # all chunks are, so that no row needs a mask
    PARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    LATE: tl.constexpr = GIVEN and WIDTH > 64
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(1), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    size: tl.constexpr = KEYS * VALUES
    here = (segment * HEADS + head) * size
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
        inside = i < CHUNK if WHOLE else chunk * CHUNK + i < steps
        rows = inside[:, None]
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        known = tl.load(v + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        solve = tl.load(inverse + index * CHUNK * CHUNK + square)
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        high, _, a, r, c, last, strength = rows_of(
            sums, beta, index * CHUNK, first + i * HEADS, i, inside,
            CHUNK, DECAY, STRENGTH, BEFORE,
        )  # fmt: skip
        if GIVEN:
            score = tl.load(scores + index * CHUNK * CHUNK + square)
        else:
            score = tl.dot(queries, tl.trans(keys), input_precision=DOT)
            now = i[:, None] >= i[None, :]
            if DECAY:
                score *= tl.exp2(tl.where(now, high[:, None] - high[None, :], float("-inf")))
            else:
                score = tl.where(now, score, 0.0)
            score = (score * (scale * strength)[None, :]).to(dtype)
            if scores is not None:
                once = square + tl.program_id(0) * (CHUNK * CHUNK) < CHUNK * CHUNK
                tl.store(scores + index * CHUNK * CHUNK + square, score, mask=once)
        old = memory.to(dtype)
        if SAVE and not LATE:
            tl.store(states + index * size + place, old, mask=in_state)
        if GIVEN:
            out = (scale * a)[:, None] * tl.dot(queries, old, input_precision=DOT)
        right = known - r[:, None] * tl.dot(keys, old, input_precision=DOT)
        if SAVE and LATE:  # not while a product holds the state in shared memory, too
            tl.store(states + index * size + place, old, mask=in_state)
        error = solved(solve, right.to(dtype), PARTS, False, DOT)
        if SAVE:
            here_now = errors + first * VALUES + by_value
            tl.store(here_now, error.to(dtype), mask=rows & in_values)
        carried = ((c * strength)[:, None] * error).to(dtype)
        if not GIVEN:
            out = (scale * a)[:, None] * tl.dot(queries, old, input_precision=DOT)
        out = tl.dot(score, error.to(dtype), acc=out, input_precision=DOT)
        out = out.to(o.dtype.element_ty)
        tl.store(o + first * VALUES + by_value, out, mask=rows & in_values)
        memory *= last
        memory = tl.dot(tl.trans(keys), carried, acc=memory, input_precision=DOT)
    tl.store(final + here + place, memory, mask=in_state)


@triton.jit(do_not_specialize=["length"])
def walk_back_scores_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    beta,  # [B, T, H]
    d_o,  # [B, T, H, V]
    d_final,  # [N, H, K, V] float32
    cu_seqlens,  # [N + 1]
    inverse,  # T [slots, H, C, C]
    sums,  # of log decays [slots, H, C] float32
    scores,  # scale QKᵀ∘G β [slots, H, C, C], or None
    d_v,  # [B, T, H, V], written, as all below
    d_states,  # of the state at each chunk's end [slots, H, K, V]
    d_initial,  # [N, H, K, V] float32
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    BEFORE: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, which has a gradient
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
    WHOLE: tl.constexpr,  # all chunks are, so that no row needs a mask
    PARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment, head, begin, steps, slot = sequence_of(
        tl.program_id(1), cu_seqlens, length, HEADS, CHUNK, VARLEN
    )
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys, in_values, in_state, place = state_of(unit, value, KEYS, VALUES)
    size: tl.constexpr = KEYS * VALUES
    here = (segment * HEADS + head) * size
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
        inside = i < CHUNK if WHOLE else chunk * CHUNK + i < steps
        rows = inside[:, None]
        queries = tl.load(q + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        keys = tl.load(k + first * KEYS + by_key, mask=rows & in_keys, other=0.0)
        d_out = tl.load(d_o + first * VALUES + by_value, mask=rows & in_values, other=0.0)
        solve = tl.load(inverse + index * CHUNK * CHUNK + square)
        high, _, a, r, c, last, strength = rows_of(
            sums, beta, index * CHUNK, first + i * HEADS, i, inside,
            CHUNK, DECAY, STRENGTH, BEFORE,
        )  # fmt: skip
        if scores is not None:
            score = tl.trans(tl.load(scores + index * CHUNK * CHUNK + square))
        else:
            score = tl.dot(keys, tl.trans(queries), input_precision=DOT)
            score *= (scale * strength)[:, None]
            after = i[:, None] <= i[None, :]
            if DECAY:
                score *= tl.exp2(tl.where(after, high[None, :] - high[:, None], float("-inf")))
            else:
                score = tl.where(after, score, 0.0)
            score = score.to(dtype)
        later = d_memory.to(dtype)
        tl.store(d_states + index * size + place, later, mask=in_state)
        d_error = (c * strength)[:, None] * tl.dot(keys, later, input_precision=DOT)
        d_error = tl.dot(score, d_out, acc=d_error, input_precision=DOT)
        d_value = solved(solve, d_error.to(dtype), PARTS, True, DOT)
        read = ((scale * a)[:, None] * d_out).to(dtype)
        predicted = (-r[:, None] * d_value).to(dtype)
        d_value = d_value.to(d_v.dtype.element_ty)
        tl.store(d_v + first * VALUES + by_value, d_value, mask=rows & in_values)
        d_memory *= last
        d_memory = tl.dot(tl.trans(queries), read, acc=d_memory, input_precision=DOT)
        d_memory = tl.dot(tl.trans(keys), predicted, acc=d_memory, input_precision=DOT)
    if STARTS:
        tl.store(d_initial + here + place, d_memory, mask=in_state)
