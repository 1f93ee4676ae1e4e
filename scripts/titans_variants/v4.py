import triton, triton.language as tl
from hypercrl_kernels.memory.chunks_triton import gates_of, last_of, segment_of, weights_of
from old_forward import chunk_of, velocity_reads

@triton.jit
def activate(x, SILU: tl.constexpr):
    """σ(x) and σ'(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        return x * gate, gate * (1.0 + x * (1.0 - gate))
    bell = tl.exp2(-0.7213475204444817 * x * x)
    away = 1.0 + 0.23164187 * tl.abs(x)
    t = tl.rsqrt(away * away)
    tail = t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))
    tail = bell * t * (0.127414796 + tail)
    below = tl.where(x < 0.0, tail, 1.0 - tail)
    return x * below, below + 0.3989422804014327 * x * bell

@triton.jit
def errors_of(
    keys, targets, w1, w2, unit, value,
    KEYS: tl.constexpr, VALUES: tl.constexpr, HIDDEN: tl.constexpr, BLOCK: tl.constexpr,
    SILU: tl.constexpr, DOT: tl.constexpr,
):
    dtype = keys.dtype
    predicted = tl.zeros(targets.shape, tl.float32)
    for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
        hidden = start + tl.arange(0, BLOCK)
        exists = hidden < HIDDEN
        into = unit[:, None] * HIDDEN + hidden[None, :]
        out = hidden[:, None] * VALUES + value[None, :]
        first = tl.load(w1 + into, mask=(unit < KEYS)[:, None] & exists[None, :], other=0.0)
        second = tl.load(w2 + out, mask=exists[:, None] & (value < VALUES)[None, :], other=0.0)
        h = activate(tl.dot(keys, first.to(dtype), input_precision=DOT), SILU)[0]
        predicted = tl.dot(h.to(dtype), second.to(dtype), acc=predicted, input_precision=DOT)
    return targets - predicted

@triton.jit(do_not_specialize=["length"])
def fwd4(
    q, k, v, log_decay, beta, log_momentum, cu_seqlens, w1, w2, s1, s2, o,
    final_w1, final_w2, final_s1, final_s2, saved_w1, saved_w2, saved_s1, saved_s2, errors, squares,
    length,
    HEADS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, VALUES: tl.constexpr, OUT: tl.constexpr,
    HIDDEN: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    DECAY: tl.constexpr, STRENGTH: tl.constexpr, MOMENTUM: tl.constexpr, SILU: tl.constexpr,
    SHARED: tl.constexpr, SAVE: tl.constexpr, VARLEN: tl.constexpr, DOT: tl.constexpr, REST: tl.constexpr,
):
    dtype = q.dtype.element_ty
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, index // HEADS, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    first_size: tl.constexpr = KEYS * HIDDEN
    second_size: tl.constexpr = HIDDEN * VALUES
    start_index = index
    if SHARED:
        start_index = head.to(tl.int64)
    w1 += start_index * first_size
    if not REST:
        s1 += start_index * first_size
        s2 += start_index * second_size
    w2 += start_index * second_size
    final_w1 += index * first_size
    final_s1 += index * first_size
    final_w2 += index * second_size
    final_s2 += index * second_size
    for chunk in tl.range(0, tl.cdiv(steps, CHUNK), disable_licm=True):
        places, queries, keys, targets, strength, weights = chunk_of(
            q, k, v, log_decay, beta, log_momentum, begin, steps, chunk, head, unit, value,
            HEADS, KEYS, VALUES, CHUNK, DECAY, STRENGTH, MOMENTUM, DOT,
        )
        t, inside, at, narrow, wide, in_keys, in_values = places
        a, r, c, d, m, kept, kept_before, moved, read, predict = weights
        f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
        scores = tl.dot(queries, tl.trans(keys), input_precision=DOT) * read
        entry = (slot + chunk) * HEADS + head
        i = tl.arange(0, CHUNK)
        square = squares + entry * (2 * CHUNK * CHUNK) + i[:, None] * CHUNK + i[None, :]
        tl.store(square, scores.to(dtype))
        read = read.to(dtype)
        error = errors_of(
            keys, targets, w1, w2, unit, value, KEYS, VALUES, HIDDEN, BLOCK, SILU, DOT
        )
        tl.store(errors + wide, error.to(dtype), mask=in_values)
        tl.debug_barrier()
        u2 = strength[:, None] * error
        written = (c[:, None] * u2).to(dtype)
        moving = (d[:, None] * u2).to(dtype)
        u2 = u2.to(dtype)
        error = tl.load(errors + wide, mask=in_values, other=0.0)
        scores = tl.load(square)
        mixing = tl.zeros([CHUNK, CHUNK], tl.float32)
        result = tl.zeros([CHUNK, OUT], tl.float32)
        entry = (slot + chunk) * HEADS + head
        for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
            hidden = start + tl.arange(0, BLOCK)
            exists = hidden < HIDDEN
            into = unit[:, None] * HIDDEN + hidden[None, :]
            out = hidden[:, None] * VALUES + value[None, :]
            in_first = (unit < KEYS)[:, None] & exists[None, :]
            in_second = exists[:, None] & (value < VALUES)[None, :]
            first = tl.load(w1 + into, mask=in_first, other=0.0)
            second = tl.load(w2 + out, mask=in_second, other=0.0)
            first_half = first.to(dtype)
            second_half = second.to(dtype)
            if SAVE:
                tl.store(saved_w1 + entry * first_size + into, first_half, mask=in_first)
                tl.store(saved_w2 + entry * second_size + out, second_half, mask=in_second)
            tl.debug_barrier()
            h, slope = activate(tl.dot(keys, first_half, input_precision=DOT), SILU)
            h = h.to(dtype)
            u1 = tl.dot(error, tl.trans(second_half), input_precision=DOT)
            u1 = strength[:, None] * u1 * slope
            y = a[:, None] * tl.dot(queries, first_half, input_precision=DOT)
            if MOMENTUM and not REST:
                s_first = tl.load(s1 + into, mask=in_first, other=0.0)
                s_second = tl.load(s2 + out, mask=in_second, other=0.0)
                y += f[:, None] * tl.dot(queries, s_first.to(dtype), input_precision=DOT)
                if SAVE:
                    at_s1 = saved_s1 + entry * first_size + into
                    tl.store(at_s1, s_first.to(dtype), mask=in_first)
                    at_s2 = saved_s2 + entry * second_size + out
                    tl.store(at_s2, s_second.to(dtype), mask=in_second)
            y = tl.dot(scores, u1.to(dtype), acc=y, input_precision=DOT)
            x = activate(y, SILU)[0]
            mixing = tl.dot(x.to(dtype), tl.trans(h), acc=mixing, input_precision=DOT)
            result = tl.dot((a[:, None] * x).to(dtype), second_half, acc=result, input_precision=DOT)
            if MOMENTUM and not REST:
                result = tl.dot((f[:, None] * x).to(dtype), s_second.to(dtype), acc=result, input_precision=DOT)
            moved_1 = tl.dot(tl.trans(keys), (c[:, None] * u1).to(dtype), input_precision=DOT)
            first = tl.load(w1 + into, mask=in_first, other=0.0)
            new = tl.fma(first, a_last, moved_1)
            if MOMENTUM and not REST:
                s_first = tl.load(s1 + into, mask=in_first, other=0.0)
                new = tl.fma(s_first, f_last, new)
            tl.store(final_w1 + into, new, mask=in_first)
            if MOMENTUM:
                new = tl.dot(tl.trans(keys), (d[:, None] * u1).to(dtype), input_precision=DOT)
                if not REST:
                    new = tl.fma(s_first, m_last, new)
                tl.store(final_s1 + into, new, mask=in_first)
            moved_2 = tl.trans(tl.dot(tl.trans(written), h, input_precision=DOT))
            second = tl.load(w2 + out, mask=in_second, other=0.0)
            new = tl.fma(second, a_last, moved_2)
            if MOMENTUM and not REST:
                s_second = tl.load(s2 + out, mask=in_second, other=0.0)
                new = tl.fma(s_second, f_last, new)
            tl.store(final_w2 + out, new, mask=in_second)
            if MOMENTUM:
                new = tl.trans(tl.dot(tl.trans(moving), h, input_precision=DOT))
                if not REST:
                    new = tl.fma(s_second, m_last, new)
                tl.store(final_s2 + out, new, mask=in_second)
        tl.store(square + CHUNK * CHUNK, mixing.to(dtype))
        result = tl.dot((mixing * read.to(tl.float32)).to(dtype), u2, acc=result, input_precision=DOT)
        tl.store(o + wide, result.to(o.dtype.element_ty), mask=in_values)
        w1 = final_w1
        w2 = final_w2
        if not REST:
            s1 = final_s1
            s2 = final_s2
        tl.debug_barrier()
