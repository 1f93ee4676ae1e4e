import triton, triton.language as tl
from hypercrl_kernels.memory.chunks_triton import gate_gradients, gates_of, segment_of, weights_of
from old_forward import velocity_reads
from v4 import activate

@triton.jit
def activate_twice(x, SILU: tl.constexpr):
    """σ(x), σ'(x) and σ''(x)."""
    if SILU:
        gate = tl.sigmoid(x)
        shut = gate * (1.0 - gate)
        return x * gate, gate + x * shut, shut * (2.0 + x * (1.0 - 2.0 * gate))
    bell = tl.exp2(-0.7213475204444817 * x * x)
    away = 1.0 + 0.23164187 * tl.abs(x)
    t = tl.rsqrt(away * away)
    tail = t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)))
    tail = bell * t * (0.127414796 + tail)
    below = tl.where(x < 0.0, tail, 1.0 - tail)
    bell = 0.3989422804014327 * bell
    return x * below, below + x * bell, bell * (2.0 - x * x)

@triton.jit(do_not_specialize=["length"])
def bwd1(
    q, k, errors, mixings, log_decay, beta, log_momentum, cu_seqlens, w1, w2, s1, s2,
    d_o, d_w1, d_w2, d_s1, d_s2, d_q, d_k, d_v, d_decay, d_beta, d_momentum,
    length,
    HEADS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, VALUES: tl.constexpr, OUT: tl.constexpr,
    HIDDEN: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
    DECAY: tl.constexpr, STRENGTH: tl.constexpr, MOMENTUM: tl.constexpr, SILU: tl.constexpr,
    SHARED: tl.constexpr, FADES: tl.constexpr, MOMENTA: tl.constexpr, VARLEN: tl.constexpr,
    DOT: tl.constexpr, REST: tl.constexpr,
):
    dtype = q.dtype.element_ty
    MOVING: tl.constexpr = MOMENTUM and not REST
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(0) % HEADS
    begin, steps, slot = segment_of(cu_seqlens, index // HEADS, length, CHUNK, VARLEN)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    i = tl.arange(0, CHUNK)
    first_size: tl.constexpr = KEYS * HIDDEN
    second_size: tl.constexpr = HIDDEN * VALUES
    d_w1 += index * first_size
    d_w2 += index * second_size
    if MOMENTA:
        d_s1 += index * first_size
        d_s2 += index * second_size
    chunks = tl.cdiv(steps, CHUNK)
    for back in tl.range(0, chunks, disable_licm=True):
        chunk = chunks - 1 - back
        entry = (slot + chunk) * HEADS + head
        square = mixings + entry * CHUNK * CHUNK + i[:, None] * CHUNK + i[None, :]
        if SHARED:
            entry = head.to(tl.int64)
        first_entry = entry * first_size
        second_entry = entry * second_size
        for turn in tl.static_range(2):
            tl.debug_barrier()
            t = chunk * CHUNK + tl.arange(0, CHUNK)
            inside = t < steps
            at = (begin + t) * HEADS + head
            narrow = at[:, None] * KEYS + unit[None, :]
            wide = at[:, None] * VALUES + value[None, :]
            in_keys = inside[:, None] & (unit < KEYS)[None, :]
            in_values = inside[:, None] & (value < VALUES)[None, :]
            queries = tl.load(q + narrow, mask=in_keys, other=0.0)
            keys = tl.load(k + narrow, mask=in_keys, other=0.0)
            error = tl.load(errors + wide, mask=in_values, other=0.0)
            d_out = tl.load(d_o + wide, mask=in_values, other=0.0).to(dtype)
            decay, _, momentum, strength = gates_of(
                log_decay, beta, log_momentum, at, t, inside,
                HEADS, CHUNK, DECAY, STRENGTH, MOMENTUM, False,
            )
            weights = weights_of(decay, decay, momentum, t, inside, CHUNK, DECAY, MOMENTUM, True, DOT)
            a, r, c, d, m, kept, kept_before, moved, read, predict = weights
            f, a_last, f_last, m_last = velocity_reads(a, m, kept, t, inside, CHUNK)
            raw = tl.dot(queries, tl.trans(keys), input_precision=DOT)
            u2 = (strength[:, None] * error.to(tl.float32)).to(dtype)
            d_mixed = tl.dot(d_out, tl.trans(u2), input_precision=DOT)
            if turn == 0:
                scores = (raw * read).to(dtype)
                d_mixing = (d_mixed * read).to(dtype)
                mixing = tl.load(square).to(tl.float32)
                d_u2 = tl.dot(tl.trans((mixing * read).to(dtype)), d_out, input_precision=DOT)
                d_scores = tl.zeros([CHUNK, CHUNK], tl.float32)
                d_error = tl.zeros([CHUNK, OUT], tl.float32)
                d_strength = tl.zeros([CHUNK], tl.float32)
                d_a = d_strength
                d_f = d_strength
                d_c = d_strength
                d_d = d_strength
                d_a_last = 0.0
                d_f_last = 0.0
                d_m_last = 0.0
            else:
                d_strength += tl.sum(d_u2 * error.to(tl.float32), 1)
                d_error += strength[:, None] * d_u2
                tl.store(d_v + wide, d_error.to(d_v.dtype.element_ty), mask=in_values)
                half_d_error = d_error.to(dtype)
                if STRENGTH:
                    tl.store(d_beta + at, d_strength, mask=inside)
                lower = i[:, None] >= i[None, :]
                d_scores = tl.where(lower, d_scores, 0.0)
                mixing = tl.load(square).to(tl.float32)
                d_read = tl.where(lower, d_mixed * mixing, 0.0) + d_scores * raw
                weighted = (d_scores * read).to(dtype)
                d_queries = tl.dot(weighted, keys, input_precision=DOT)
                d_keys = tl.dot(tl.trans(weighted), queries, input_precision=DOT)
                if DECAY or MOMENTUM:
                    last = i == CHUNK - 1
                    d_read += tl.where(last[:, None], d_c[None, :], 0.0)
                    d_a += tl.where(last, d_a_last, 0.0)
                    d_f += tl.where(last, d_f_last, 0.0)
                    by_decay, by_momentum = gate_gradients(
                        d_read, d_read, d_a, d_a, d_f, d_f, d_d, d_m_last, a, r, d, m, kept,
                        kept_before, moved, t, inside, CHUNK, MOMENTUM, 0, DOT,
                    )
                    if DECAY:
                        tl.store(d_decay + at, by_decay, mask=inside)
                    if MOMENTUM:
                        tl.store(d_momentum + at, by_momentum, mask=inside)
                tl.debug_barrier()
            for start in tl.range(0, HIDDEN, BLOCK, disable_licm=True):
                hidden = start + tl.arange(0, BLOCK)
                exists = hidden < HIDDEN
                into = unit[:, None] * HIDDEN + hidden[None, :]
                out = hidden[:, None] * VALUES + value[None, :]
                in_first = (unit < KEYS)[:, None] & exists[None, :]
                in_second = exists[:, None] & (value < VALUES)[None, :]
                first = tl.load(w1 + first_entry + into, mask=in_first, other=0.0).to(dtype)
                second = tl.load(w2 + second_entry + out, mask=in_second, other=0.0).to(dtype)
                z = tl.dot(keys, first, input_precision=DOT)
                h, slope, bend = activate_twice(z, SILU)
                half_h = h.to(dtype)
                p = strength[:, None] * tl.dot(error, tl.trans(second), input_precision=DOT)
                u1 = (p * slope).to(dtype)
                from_first = tl.dot(queries, first, input_precision=DOT)
                y = a[:, None] * from_first
                from_second = tl.dot(d_out, tl.trans(second), input_precision=DOT)
                d_x = a[:, None] * from_second
                if MOVING:
                    s_first = tl.load(s1 + first_entry + into, mask=in_first, other=0.0).to(dtype)
                    s_second = tl.load(s2 + second_entry + out, mask=in_second, other=0.0).to(dtype)
                    from_s1 = tl.dot(queries, s_first, input_precision=DOT)
                    from_s2 = tl.dot(d_out, tl.trans(s_second), input_precision=DOT)
                    y += f[:, None] * from_s1
                    d_x += f[:, None] * from_s2
                y = tl.dot(scores, u1, acc=y, input_precision=DOT)
                d_x = tl.dot(d_mixing, half_h, acc=d_x, input_precision=DOT)
                x, x_slope = activate(y, SILU)
                d_y = d_x * x_slope
                half_d_y = d_y.to(dtype)
                d_u1 = tl.dot(tl.trans(scores), half_d_y, input_precision=DOT)
                if FADES:
                    to_first = tl.load(d_w1 + into, mask=in_first, other=0.0)
                    to_second = tl.load(d_w2 + out, mask=in_second, other=0.0)
                    half_first = to_first.to(dtype)
                    half_second = to_second.to(dtype)
                    by_keys = tl.dot(keys, half_first, input_precision=DOT)
                    d_u1 += c[:, None] * by_keys
                    if MOMENTUM:
                        to_s1 = tl.load(d_s1 + into, mask=in_first, other=0.0)
                        to_s2 = tl.load(d_s2 + out, mask=in_second, other=0.0)
                        half_s1 = to_s1.to(dtype)
                        half_s2 = to_s2.to(dtype)
                        by_moving = tl.dot(keys, half_s1, input_precision=DOT)
                        d_u1 += d[:, None] * by_moving
                d_p = (strength[:, None] * d_u1 * slope).to(dtype)
                if turn == 0:
                    d_scores = tl.dot(half_d_y, tl.trans(u1), acc=d_scores, input_precision=DOT)
                    d_error = tl.dot(d_p, second, acc=d_error, input_precision=DOT)
                    plain = tl.dot(error, tl.trans(second), input_precision=DOT)
                    d_strength += tl.sum(d_u1 * plain * slope, 1)
                    d_a += tl.sum(d_y * from_first + x * from_second, 1)
                    if MOVING:
                        d_f += tl.sum(d_y * from_s1 + x * from_s2, 1)
                    if FADES:
                        d_c += tl.sum(u1 * by_keys, 1)
                        d_a_last += tl.sum(first * to_first) + tl.sum(second * to_second)
                        by_u2 = tl.dot(u2, tl.trans(half_second), input_precision=DOT)
                        d_c += tl.sum(h * by_u2, 1)
                        written = (c[:, None] * h).to(dtype)
                        d_u2 = tl.dot(written, half_second, acc=d_u2, input_precision=DOT)
                        if MOMENTUM:
                            by_u2 = tl.dot(u2, tl.trans(half_s2), input_precision=DOT)
                            d_d += tl.sum(h * by_u2, 1)
                            written = (d[:, None] * h).to(dtype)
                            d_u2 = tl.dot(written, half_s2, acc=d_u2, input_precision=DOT)
                            d_d += tl.sum(u1 * by_moving, 1)
                            d_m_last += tl.sum(s_first * to_s1) + tl.sum(s_second * to_s2)
                            if MOVING:
                                d_f_last += tl.sum(s_first * to_first) + tl.sum(s_second * to_second)
                else:
                    d_h = tl.dot(tl.trans(d_mixing), x.to(dtype), input_precision=DOT)
                    d_h -= tl.dot(half_d_error, tl.trans(second), input_precision=DOT)
                    if FADES:
                        d_h += c[:, None] * tl.dot(u2, tl.trans(half_second), input_precision=DOT)
                        u1_c = (c[:, None] * u1).to(dtype)
                        d_keys = tl.dot(u1_c, tl.trans(half_first), acc=d_keys, input_precision=DOT)
                        if MOMENTUM:
                            d_h += d[:, None] * tl.dot(u2, tl.trans(half_s2), input_precision=DOT)
                            u1_d = (d[:, None] * u1).to(dtype)
                            d_keys = tl.dot(u1_d, tl.trans(half_s1), acc=d_keys, input_precision=DOT)
                    d_z = (d_h * slope + d_u1 * p * bend).to(dtype)
                    reads = (a[:, None] * d_y).to(dtype)
                    d_keys = tl.dot(d_z, tl.trans(first), acc=d_keys, input_precision=DOT)
                    d_queries = tl.dot(reads, tl.trans(first), acc=d_queries, input_precision=DOT)
                    new = tl.dot(tl.trans(keys), d_z, input_precision=DOT)
                    new = tl.dot(tl.trans(queries), reads, acc=new, input_precision=DOT)
                    if FADES:
                        new = tl.fma(to_first, a_last, new)
                    tl.store(d_w1 + into, new, mask=in_first)
                    new = tl.dot(tl.trans(d_out), (a[:, None] * x).to(dtype), input_precision=DOT)
                    new = tl.dot(tl.trans(error), d_p, acc=new, input_precision=DOT)
                    less = tl.dot(tl.trans(half_d_error), half_h, input_precision=DOT)
                    new = tl.trans(new - less)
                    if FADES:
                        new = tl.fma(to_second, a_last, new)
                    tl.store(d_w2 + out, new, mask=in_second)
                    if MOVING:
                        reads = (f[:, None] * d_y).to(dtype)
                        d_queries = tl.dot(reads, tl.trans(s_first), acc=d_queries, input_precision=DOT)
                    if MOMENTA:
                        new = tl.dot(tl.trans(queries), (f[:, None] * d_y).to(dtype), input_precision=DOT)
                        if FADES:
                            new = tl.fma(to_s1, m_last, tl.fma(to_first, f_last, new))
                        tl.store(d_s1 + into, new, mask=in_first)
                        new = tl.trans(tl.dot(tl.trans(d_out), (f[:, None] * x).to(dtype), input_precision=DOT))
                        if FADES:
                            new = tl.fma(to_s2, m_last, tl.fma(to_second, f_last, new))
                        tl.store(d_s2 + out, new, mask=in_second)
        tl.store(d_q + narrow, d_queries.to(d_q.dtype.element_ty), mask=in_keys)
        tl.store(d_k + narrow, d_keys.to(d_k.dtype.element_ty), mask=in_keys)
        tl.debug_barrier()
