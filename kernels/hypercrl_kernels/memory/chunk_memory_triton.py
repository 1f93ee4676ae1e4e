"""Matrix memories as Triton kernels: two for the forward pass, two for the backward.

What does not depend on the memory's state is done for all chunks at once (`prepare`, `finish`);
what does walks through a sequence chunk by chunk with the state in registers (`walk`, `walk_back`)
and is as short as it can be. With M the memory and S its velocity at the start of a chunk:

    R = β (V − r KM − s KS),  U = T R,  O = a QM + f QS + A U,
    M' = a_C M + f_C S + (c K)ᵀ U,  S' = m_C S + (d K)ᵀ U,

with A = QKᵀ∘G and T = (I + β KKᵀ∘P)⁻¹; G, P and the row vectors a, r, f, s, c, d come from the
gates alone (`_weights`).
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def _chunk_of(
    cu_seqlens,
    slot,
    length,
    segments,
    CHUNK: tl.constexpr,
    VARLEN: tl.constexpr,
    SEARCH: tl.constexpr,
):
    """Of the chunk in a slot: the segment's first step, its length, and the chunk's number."""
    if VARLEN:
        # Segment i has slots from start_i // CHUNK + i on: enough for it, and never two in one.
        low = 0
        high = segments
        for _ in range(SEARCH):
            middle = (low + high) // 2
            first = tl.load(cu_seqlens + middle).to(tl.int32) // CHUNK + middle
            here = (first <= slot) & (middle < segments)
            low = tl.where(here, middle, low)
            high = tl.where(here, high, middle)
        begin = tl.load(cu_seqlens + low).to(tl.int64)
        end = tl.load(cu_seqlens + low + 1).to(tl.int64)
        chunk = slot - (begin // CHUNK + low)
        return begin, end - begin, chunk
    chunks = (length + CHUNK - 1) // CHUNK
    segment = slot // chunks
    return segment.to(tl.int64) * length, length, slot - segment * chunks


@triton.jit
def _segment(cu_seqlens, segment, length, CHUNK: tl.constexpr, VARLEN: tl.constexpr):
    """Of a segment: its first step, its length, and its first slot."""
    if VARLEN:
        begin = tl.load(cu_seqlens + segment).to(tl.int64)
        end = tl.load(cu_seqlens + segment + 1).to(tl.int64)
        return begin, (end - begin).to(tl.int32), begin // CHUNK + segment
    return segment * length, length, segment * ((length + CHUNK - 1) // CHUNK)


@triton.jit
def _gate(gate, at, inside):
    return tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _decays(gate, apart):
    """exp of the sum over each pair's own terms, [C, C]: a difference of sums would cancel."""
    return tl.exp(tl.cumsum(tl.where(apart, gate[:, None], 0.0), 0))


@triton.jit
def _weights(
    decay,  # [C] log gates, zero beyond the end
    previous,  # [C] the same, one step earlier, zero in the first
    momentum,  # [C]
    inside,  # [C]
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    MOMENTUM: tl.constexpr,
    AFTER: tl.constexpr,
    DOT: tl.constexpr,
):
    """G, P and what they are made of: D, D' (decay up to a read and up to a prediction) and E.

    G_tj is the weight at which step t reads what entered at j; P_tj that at which it predicts.
    """
    row = tl.arange(0, CHUNK)[:, None]
    column = tl.arange(0, CHUNK)[None, :]
    kept = tl.where(row >= column, 1.0, 0.0)
    kept_before = tl.where(row > column, 1.0, 0.0)
    a = tl.full([CHUNK], 1.0, tl.float32)
    r = a
    if DECAY:
        a = tl.exp(tl.cumsum(decay, 0))
        kept *= _decays(decay, row > column)
        if AFTER:
            r = a
            kept_before *= kept
        else:
            r = tl.exp(tl.cumsum(previous, 0))
            kept_before *= _decays(previous, row > column + 1)
    read = kept
    predict = kept_before
    moved = kept
    d = a
    m = a
    if MOMENTUM:
        moved = tl.where(row >= column, _decays(momentum, row > column), 0.0)
        d = tl.sum(tl.where(row == CHUNK - 1, moved, 0.0), 0)
        m = tl.exp(tl.cumsum(momentum, 0))
        # Steps beyond the end add nothing to the memory.
        moved = tl.where(inside[:, None], moved, 0.0)
        read = tl.dot(kept, moved, input_precision=DOT)
        predict = tl.dot(kept_before, moved, input_precision=DOT)
    return a, r, d, m, kept, kept_before, moved, read, predict


@triton.jit
def _inverse(lower, CHUNK: tl.constexpr, LEVELS: tl.constexpr, DOT: tl.constexpr):
    """(I + lower)⁻¹ by doubling inverted diagonal blocks: T ← T − T B T.

    T holds the inverses of blocks of n rows, B the blocks of `lower` that join two of them. As
    exact as forward substitution however ill-conditioned the matrix, in log₂ C steps instead of C.
    """
    row = tl.arange(0, CHUNK)[:, None]
    column = tl.arange(0, CHUNK)[None, :]
    below = row > column
    inverse = tl.where(row == column, 1.0, 0.0)
    inverse -= tl.where(below & ((row ^ column) == 1), lower, 0.0)
    for level in tl.static_range(1, LEVELS):
        joins = below & (((row >> level) ^ (column >> level)) == 1)
        right = tl.dot(tl.where(joins, lower, 0.0), inverse, input_precision=DOT)
        inverse -= tl.dot(inverse, right, input_precision=DOT)
    return inverse


@triton.jit(do_not_specialize=["length", "segments"])
def prepare_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    log_momentum,  # [B, T, H]
    cu_seqlens,  # [N + 1]
    reading,  # A [slots, H, C, C], written
    inverse,  # T [slots, H, C, C], written
    rows,  # a, r, c, β, f, s, d, m [slots, H, ROWS, C] float32, written
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,  # 0 none, 1 chunk start, 2 before decay, 3 after decay
    VARLEN: tl.constexpr,
    SEARCH: tl.constexpr,
    DOT: tl.constexpr,
):
    slot = tl.program_id(0)
    head = tl.program_id(1)
    begin, steps, chunk = _chunk_of(cu_seqlens, slot, length, segments, CHUNK, VARLEN, SEARCH)
    i = tl.arange(0, CHUNK)
    t = chunk * CHUNK + i
    inside = t < steps
    if chunk * CHUNK < steps:
        unit = tl.arange(0, WIDTH)
        at = (begin + t) * HEADS + head
        block = at[:, None] * KEYS + unit[None, :]
        mask = inside[:, None] & (unit < KEYS)[None, :]
        queries = tl.load(q + block, mask=mask, other=0.0)
        keys = tl.load(k + block, mask=mask, other=0.0)
        decay = tl.zeros([CHUNK], tl.float32)
        previous = decay
        momentum = decay
        strength = decay + 1.0
        if DECAY:
            decay = _gate(log_decay, at, inside)
            if ERROR == 2:
                previous = _gate(log_decay, at - HEADS, inside & (i > 0))
        if MOMENTUM:
            momentum = _gate(log_momentum, at, inside)
        if STRENGTH:
            strength = _gate(beta, at, inside)
        a, r, d, m, kept, kept_before, _, read, predict = _weights(
            decay, previous, momentum, inside, CHUNK, DECAY, MOMENTUM, ERROR == 3, DOT
        )
        index = slot.to(tl.int64) * HEADS + head
        square = index * CHUNK * CHUNK + i[:, None] * CHUNK + i[None, :]
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT) * read
        tl.store(reading + square, scores.to(reading.dtype.element_ty))
        if ERROR >= 2:
            lower = tl.dot(keys, tl.trans(keys), input_precision=DOT) * predict
            solved = _inverse(strength[:, None] * lower, CHUNK, LEVELS, DOT)
            tl.store(inverse + square, solved.to(inverse.dtype.element_ty))
        row = rows + index * ROWS * CHUNK + i
        last = i == CHUNK - 1
        tl.store(row, a)
        tl.store(row + CHUNK, r)
        tl.store(row + 2 * CHUNK, tl.sum(tl.where(last[:, None], read, 0.0), 0))
        tl.store(row + 3 * CHUNK, strength)
        if MOMENTUM:
            present = tl.where(inside, m, 0.0)
            tl.store(row + 4 * CHUNK, tl.sum(kept * present[None, :], 1))
            tl.store(row + 5 * CHUNK, tl.sum(kept_before * present[None, :], 1))
            tl.store(row + 6 * CHUNK, d)
            tl.store(row + 7 * CHUNK, m)


@triton.jit(do_not_specialize=["length", "segments"])
def walk_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    reading,  # [slots, H, C, C]
    inverse,  # [slots, H, C, C]
    rows,  # [slots, H, ROWS, C]
    initial,  # [N, H, (2,) K, V] float32
    cu_seqlens,  # [N + 1]
    o,  # [B, T, H, V], written
    final,  # [N, H, (2,) K, V] float32, written
    states,  # [slots, H, (2,) K, V], written: the state at each chunk's start
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,  # of values, one program's
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, else from zeros
    SAVE: tl.constexpr,
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    begin, steps, slot = _segment(cu_seqlens, segment, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    copies: tl.constexpr = 2 if MOMENTUM else 1
    size: tl.constexpr = KEYS * VALUES
    place = unit[:, None] * VALUES + value[None, :]
    here = (segment * HEADS + head) * copies * size + place
    memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    velocity = memory
    if STARTS:
        memory = tl.load(initial + here, mask=in_state, other=0.0)
        if MOMENTUM:
            velocity = tl.load(initial + here + size, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    square = i[:, None] * CHUNK + i[None, :]
    for chunk in range(0, tl.cdiv(steps, CHUNK)):
        index = (slot + chunk) * HEADS + head
        t = chunk * CHUNK + i
        inside = (t < steps)[:, None]
        at = ((begin + t) * HEADS + head)[:, None]
        queries = tl.load(q + at * KEYS + unit[None, :], mask=inside & in_keys, other=0.0)
        keys = tl.load(k + at * KEYS + unit[None, :], mask=inside & in_keys, other=0.0)
        right = tl.load(v + at * VALUES + value[None, :], mask=inside & in_values, other=0.0)
        score = tl.load(reading + index * CHUNK * CHUNK + square)
        row = rows + index * ROWS * CHUNK
        a = tl.load(row + i)[:, None]
        c = tl.load(row + 2 * CHUNK + i)[:, None]
        strength = tl.load(row + 3 * CHUNK + i)[:, None]
        if SAVE:
            saved = states + index * copies * size + place
            tl.store(saved, memory.to(dtype), mask=in_state)
            if MOMENTUM:
                tl.store(saved + size, velocity.to(dtype), mask=in_state)
        old = memory.to(dtype)
        out = a * tl.dot(queries, old, input_precision=DOT)
        right = right.to(tl.float32)
        if ERROR == 1:
            right -= tl.dot(keys, old, input_precision=DOT)
        if ERROR >= 2:
            r = tl.load(row + CHUNK + i)[:, None]
            right -= r * tl.dot(keys, old, input_precision=DOT)
        if MOMENTUM:
            old = velocity.to(dtype)
            f = tl.load(row + 4 * CHUNK + i)[:, None]
            out += f * tl.dot(queries, old, input_precision=DOT)
            if ERROR >= 2:
                s = tl.load(row + 5 * CHUNK + i)[:, None]
                right -= s * tl.dot(keys, old, input_precision=DOT)
        write = (strength * right).to(dtype)
        if ERROR >= 2:
            solve = tl.load(inverse + index * CHUNK * CHUNK + square)
            write = tl.dot(solve, write, input_precision=DOT).to(dtype)
        out += tl.dot(score, write, input_precision=DOT)
        tl.store(
            o + at * VALUES + value[None, :],
            (scale * out).to(o.dtype.element_ty),
            mask=inside & in_values,
        )
        carried = tl.trans((c * keys).to(dtype))
        memory *= tl.load(row + CHUNK - 1)
        if MOMENTUM:
            memory += tl.load(row + 5 * CHUNK - 1) * velocity
            d = tl.load(row + 6 * CHUNK + i)[:, None]
            velocity *= tl.load(row + 8 * CHUNK - 1)
            velocity += tl.dot(tl.trans((d * keys).to(dtype)), write, input_precision=DOT)
        memory += tl.dot(carried, write, input_precision=DOT)
    tl.store(final + here, memory, mask=in_state)
    if MOMENTUM:
        tl.store(final + here + size, velocity, mask=in_state)


@triton.jit(do_not_specialize=["length", "segments"])
def walk_back_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    d_o,  # [B, T, H, V]
    reading,  # [slots, H, C, C]
    inverse,  # [slots, H, C, C]
    rows,  # [slots, H, ROWS, C]
    d_final,  # [N, H, (2,) K, V] float32
    cu_seqlens,  # [N + 1]
    d_right,  # W = Tᵀ dU [B, T, H, V], written
    d_initial,  # [N, H, (2,) K, V] float32, written
    d_states,  # [slots, H, (2,) K, V], written: of the state at each chunk's end
    scale,
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, which has a gradient
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    segment = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    begin, steps, slot = _segment(cu_seqlens, segment, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    copies: tl.constexpr = 2 if MOMENTUM else 1
    size: tl.constexpr = KEYS * VALUES
    place = unit[:, None] * VALUES + value[None, :]
    here = (segment * HEADS + head) * copies * size + place
    d_memory = tl.zeros([WIDTH, BLOCK], tl.float32)
    d_velocity = d_memory
    if ENDS:
        d_memory = tl.load(d_final + here, mask=in_state, other=0.0)
        if MOMENTUM:
            d_velocity = tl.load(d_final + here + size, mask=in_state, other=0.0)
    i = tl.arange(0, CHUNK)
    square = i[:, None] * CHUNK + i[None, :]
    chunks = tl.cdiv(steps, CHUNK)
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        index = (slot + chunk) * HEADS + head
        t = chunk * CHUNK + i
        inside = (t < steps)[:, None]
        at = ((begin + t) * HEADS + head)[:, None]
        queries = tl.load(q + at * KEYS + unit[None, :], mask=inside & in_keys, other=0.0)
        keys = tl.load(k + at * KEYS + unit[None, :], mask=inside & in_keys, other=0.0)
        d_out = tl.load(d_o + at * VALUES + value[None, :], mask=inside & in_values, other=0.0)
        d_out = (scale * d_out).to(dtype)
        score = tl.load(reading + index * CHUNK * CHUNK + square)
        row = rows + index * ROWS * CHUNK
        a = tl.load(row + i)[:, None]
        r = tl.load(row + CHUNK + i)[:, None]
        c = tl.load(row + 2 * CHUNK + i)[:, None]
        strength = tl.load(row + 3 * CHUNK + i)[:, None]
        saved = d_states + index * copies * size + place
        later = d_memory.to(dtype)
        tl.store(saved, later, mask=in_state)
        d_write = tl.dot(tl.trans(score), d_out, input_precision=DOT)
        d_write += tl.dot((c * keys).to(dtype), later, input_precision=DOT)
        if MOMENTUM:
            later = d_velocity.to(dtype)
            tl.store(saved + size, later, mask=in_state)
            d = tl.load(row + 6 * CHUNK + i)[:, None]
            d_write += tl.dot((d * keys).to(dtype), later, input_precision=DOT)
        if ERROR >= 2:
            solve = tl.load(inverse + index * CHUNK * CHUNK + square)
            d_write = tl.dot(tl.trans(solve), d_write.to(dtype), input_precision=DOT)
        tl.store(d_right + at * VALUES + value[None, :], d_write.to(dtype), mask=inside & in_values)
        d_predicted = (strength * d_write).to(dtype)
        if MOMENTUM:
            f = tl.load(row + 4 * CHUNK + i)[:, None]
            d_velocity *= tl.load(row + 8 * CHUNK - 1)
            d_velocity += tl.load(row + 5 * CHUNK - 1) * d_memory
            reads = tl.trans((f * queries).to(dtype))
            d_velocity += tl.dot(reads, d_out, input_precision=DOT)
            if ERROR >= 2:
                s = tl.load(row + 5 * CHUNK + i)[:, None]
                predicts = tl.trans((s * keys).to(dtype))
                d_velocity -= tl.dot(predicts, d_predicted, input_precision=DOT)
        d_memory *= tl.load(row + CHUNK - 1)
        d_memory += tl.dot(tl.trans((a * queries).to(dtype)), d_out, input_precision=DOT)
        if ERROR == 1:
            d_memory -= tl.dot(tl.trans(keys), d_predicted, input_precision=DOT)
        if ERROR >= 2:
            predicts = tl.trans((r * keys).to(dtype))
            d_memory -= tl.dot(predicts, d_predicted, input_precision=DOT)
    if STARTS:
        tl.store(d_initial + here, d_memory, mask=in_state)
        if MOMENTUM:
            tl.store(d_initial + here + size, d_velocity, mask=in_state)


@triton.jit
def _gate_gradients(
    d_read,  # of G [C, C], and so on; of what stands in the last row for the whole chunk too
    d_predict,
    d_a,
    d_r,
    d_f,
    d_s,
    d_d,
    d_m_last,
    a,
    r,
    d,
    m,
    kept,
    kept_before,
    moved,
    inside,
    CHUNK: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    DOT: tl.constexpr,
):
    """Gradients [C] of log_decay and log_momentum, through all that `_weights` makes of them."""
    i = tl.arange(0, CHUNK)
    strict = i[:, None] > i[None, :]
    last = i == CHUNK - 1
    d_kept = d_read
    d_before = d_predict
    by_momentum = d_a
    if MOMENTUM:
        present = tl.where(inside, m, 0.0)
        d_kept = tl.dot(d_read, tl.trans(moved), input_precision=DOT)
        d_kept += d_f[:, None] * present[None, :]
        d_moved = tl.dot(tl.trans(kept), d_read, input_precision=DOT)
        d_m = tl.sum(kept * d_f[:, None], 0)
        if ERROR >= 2:
            d_before = tl.dot(d_predict, tl.trans(moved), input_precision=DOT)
            d_before += d_s[:, None] * present[None, :]
            d_moved += tl.dot(tl.trans(kept_before), d_predict, input_precision=DOT)
            d_m += tl.sum(kept_before * d_s[:, None], 0)
        pair = tl.where(strict, d_moved * moved, 0.0)
        d_gap = d_d * d
        total = tl.sum(pair, 1) - tl.sum(pair, 0) - d_gap + present * d_m
        total += tl.where(last, tl.sum(d_gap, 0) + d_m_last * m, 0.0)
        by_momentum = tl.cumsum(total, 0, reverse=True)
    pair = tl.where(strict, d_kept * kept, 0.0)
    total = tl.sum(pair, 1) - tl.sum(pair, 0) + a * d_a
    early = total
    if ERROR >= 2:
        pair = d_before * kept_before
        early = tl.sum(pair, 1) + r * d_r
        total += early - tl.sum(pair, 0)
    by_decay = tl.cumsum(total, 0, reverse=True)
    if ERROR == 2:
        by_decay -= early
    return by_decay, by_momentum


@triton.jit(do_not_specialize=["length", "segments"])
def finish_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    log_decay,  # [B, T, H]
    log_momentum,  # [B, T, H]
    d_o,  # [B, T, H, V]
    d_right,  # [B, T, H, V]
    inverse,  # [slots, H, C, C]
    rows,  # [slots, H, ROWS, C]
    states,  # [slots, H, (2,) K, V]
    d_states,  # [slots, H, (2,) K, V]
    cu_seqlens,  # [N + 1]
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    d_decay,  # [B, T, H] float32
    d_beta,  # [B, T, H] float32
    d_momentum,  # [B, T, H] float32
    scale,
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    VARLEN: tl.constexpr,
    SEARCH: tl.constexpr,
    DOT: tl.constexpr,
):
    dtype = q.dtype.element_ty
    slot = tl.program_id(0)
    head = tl.program_id(1)
    begin, steps, chunk = _chunk_of(cu_seqlens, slot, length, segments, CHUNK, VARLEN, SEARCH)
    i = tl.arange(0, CHUNK)
    t = chunk * CHUNK + i
    inside = t < steps
    if chunk * CHUNK < steps:
        index = slot.to(tl.int64) * HEADS + head
        unit = tl.arange(0, WIDTH)
        at = (begin + t) * HEADS + head
        block = at[:, None] * KEYS + unit[None, :]
        mask = inside[:, None] & (unit < KEYS)[None, :]
        queries = tl.load(q + block, mask=mask, other=0.0)
        keys = tl.load(k + block, mask=mask, other=0.0)
        row = rows + index * ROWS * CHUNK + i
        a = tl.load(row)
        r = tl.load(row + CHUNK)
        c = tl.load(row + 2 * CHUNK)
        strength = tl.load(row + 3 * CHUNK)
        f = a
        s = a
        d = a
        if MOMENTUM:
            f = tl.load(row + 4 * CHUNK)
            s = tl.load(row + 5 * CHUNK)
            d = tl.load(row + 6 * CHUNK)
        square = i[:, None] * CHUNK + i[None, :]
        solve = tl.zeros([CHUNK, CHUNK], dtype)
        if ERROR >= 2:
            solve = tl.load(inverse + index * CHUNK * CHUNK + square)
        copies: tl.constexpr = 2 if MOMENTUM else 1
        size: tl.constexpr = KEYS * VALUES

        d_scores = tl.zeros([CHUNK, CHUNK], tl.float32)
        d_lower = tl.zeros([CHUNK, CHUNK], tl.float32)
        d_queries = tl.zeros([CHUNK, WIDTH], tl.float32)
        d_keys = tl.zeros([CHUNK, WIDTH], tl.float32)
        d_strength = tl.zeros([CHUNK], tl.float32)
        d_a = d_strength
        d_r = d_strength
        d_c = d_strength
        d_f = d_strength
        d_s = d_strength
        d_d = d_strength
        d_a_last = 0.0
        d_f_last = 0.0
        d_m_last = 0.0
        for start in range(0, VALUES, BLOCK):
            value = start + tl.arange(0, BLOCK)
            in_values = (value < VALUES)[None, :]
            wide = at[:, None] * VALUES + value[None, :]
            wide_mask = inside[:, None] & in_values
            place = index * copies * size + unit[:, None] * VALUES + value[None, :]
            in_state = (unit < KEYS)[:, None] & in_values
            memory = tl.load(states + place, mask=in_state, other=0.0)
            d_memory = tl.load(d_states + place, mask=in_state, other=0.0)
            right = tl.load(v + wide, mask=wide_mask, other=0.0).to(tl.float32)
            d_out = tl.load(d_o + wide, mask=wide_mask, other=0.0)
            d_out = (scale * d_out).to(dtype)
            weight = tl.load(d_right + wide, mask=wide_mask, other=0.0)
            velocity = memory
            d_velocity = d_memory
            if MOMENTUM:
                velocity = tl.load(states + place + size, mask=in_state, other=0.0)
                d_velocity = tl.load(d_states + place + size, mask=in_state, other=0.0)
            if ERROR == 1:
                right -= tl.dot(keys, memory, input_precision=DOT)
            if ERROR >= 2:
                right -= r[:, None] * tl.dot(keys, memory, input_precision=DOT)
                if MOMENTUM:
                    right -= s[:, None] * tl.dot(keys, velocity, input_precision=DOT)
            write = (strength[:, None] * right).to(dtype)
            if ERROR >= 2:
                write = tl.dot(solve, write, input_precision=DOT).to(dtype)
                d_lower -= tl.dot(weight, tl.trans(write), input_precision=DOT)
            d_scores += tl.dot(d_out, tl.trans(write), input_precision=DOT)
            weight = weight.to(tl.float32)
            d_strength += tl.sum(weight * right, 1)
            d_value = strength[:, None] * weight
            tl.store(d_v + wide, d_value.to(d_v.dtype.element_ty), mask=wide_mask)
            d_predicted = d_value.to(dtype)

            back = tl.dot(d_out, tl.trans(memory), input_precision=DOT)
            d_queries += a[:, None] * back
            d_a += tl.sum(queries * back, 1)
            back = tl.dot(write, tl.trans(d_memory), input_precision=DOT)
            d_keys += c[:, None] * back
            d_c += tl.sum(keys * back, 1)
            d_a_last += tl.sum(memory.to(tl.float32) * d_memory.to(tl.float32))
            if ERROR == 1:
                d_keys -= tl.dot(d_predicted, tl.trans(memory), input_precision=DOT)
            if ERROR >= 2:
                back = tl.dot(d_predicted, tl.trans(memory), input_precision=DOT)
                d_keys -= r[:, None] * back
                d_r -= tl.sum(keys * back, 1)
            if MOMENTUM:
                back = tl.dot(d_out, tl.trans(velocity), input_precision=DOT)
                d_queries += f[:, None] * back
                d_f += tl.sum(queries * back, 1)
                back = tl.dot(write, tl.trans(d_velocity), input_precision=DOT)
                d_keys += d[:, None] * back
                d_d += tl.sum(keys * back, 1)
                d_f_last += tl.sum(velocity.to(tl.float32) * d_memory.to(tl.float32))
                d_m_last += tl.sum(velocity.to(tl.float32) * d_velocity.to(tl.float32))
                if ERROR >= 2:
                    back = tl.dot(d_predicted, tl.trans(velocity), input_precision=DOT)
                    d_keys -= s[:, None] * back
                    d_s -= tl.sum(keys * back, 1)

        decay = tl.zeros([CHUNK], tl.float32)
        previous = decay
        momentum = decay
        if DECAY:
            decay = _gate(log_decay, at, inside)
            if ERROR == 2:
                previous = _gate(log_decay, at - HEADS, inside & (i > 0))
        if MOMENTUM:
            momentum = _gate(log_momentum, at, inside)
        a, r, d, m, kept, kept_before, moved, read, predict = _weights(
            decay, previous, momentum, inside, CHUNK, DECAY, MOMENTUM, ERROR == 3, DOT
        )
        strict = i[:, None] > i[None, :]
        last = i == CHUNK - 1
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT)
        d_scores = tl.where(i[:, None] >= i[None, :], d_scores, 0.0)
        d_read = d_scores * scores
        d_scores = (d_scores * read).to(dtype)
        d_queries += tl.dot(d_scores, keys, input_precision=DOT)
        d_keys += tl.dot(tl.trans(d_scores), queries, input_precision=DOT)
        d_predict = tl.zeros([CHUNK, CHUNK], tl.float32)
        if ERROR >= 2:
            scores = tl.dot(keys, tl.trans(keys), input_precision=DOT)
            d_lower = tl.where(strict, d_lower, 0.0)
            d_strength += tl.sum(d_lower * scores * predict, 1)
            d_lower *= strength[:, None]
            d_predict = d_lower * scores
            both = d_lower * predict
            both = (both + tl.trans(both)).to(dtype)
            d_keys += tl.dot(both, keys, input_precision=DOT)
        tl.store(d_q + block, d_queries.to(d_q.dtype.element_ty), mask=mask)
        tl.store(d_k + block, d_keys.to(d_k.dtype.element_ty), mask=mask)
        if STRENGTH:
            tl.store(d_beta + at, d_strength, mask=inside)

        if DECAY or MOMENTUM:
            d_read += tl.where(last[:, None], d_c[None, :], 0.0)
            d_a += tl.where(last, d_a_last, 0.0)
            d_f += tl.where(last, d_f_last, 0.0)
            by_decay, by_momentum = _gate_gradients(
                d_read, d_predict, d_a, d_r, d_f, d_s, d_d, d_m_last, a, r, d, m, kept,
                kept_before, moved, inside, CHUNK, MOMENTUM, ERROR, DOT,
            )  # fmt: skip
            if DECAY:
                tl.store(d_decay + at, by_decay, mask=inside)
            if MOMENTUM:
                tl.store(d_momentum + at, by_momentum, mask=inside)
