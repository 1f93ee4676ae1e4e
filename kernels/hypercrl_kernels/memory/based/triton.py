"""BASED as Triton kernels: attention whose weights are a polynomial of the scores.

With s = q·k / √K, p = 1 + s + s²/2: O = Σ p V / (Σ p + ε). No feature is formed; what came before
the sequence enters as a numerator and a denominator per step.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def _rows(x, at, column, mask):
    return tl.load(x + at[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def _scores(queries, keys, row, other, length, factor, DOT: tl.constexpr):
    """s and, where the key is not later than the query, p; both [rows, others]."""
    s = factor * tl.dot(queries, tl.trans(keys), input_precision=DOT)
    seen = (row[:, None] >= other[None, :]) & (row < length)[:, None]
    return s, tl.where(seen, 1.0 + s + 0.5 * s * s, 0.0), seen


@triton.jit(do_not_specialize=["length"])
def based_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    before,  # [B, T, H, V + 1] float32: numerator and denominator of what came before
    o,  # [B, T, H, V], written
    below,  # Σ p + ε [B, T, H] float32, written
    length,
    factor,
    epsilon,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK: tl.constexpr,
    STARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    in_values = (value < VALUES)[None, :]
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = (batch * length + row) * HEADS + head
    in_keys = (unit < KEYS)[None, :]
    inside = row < length
    queries = _rows(q, at * KEYS, unit, inside[:, None] & in_keys)
    above = tl.zeros([BLOCK, OUT], tl.float32)
    total = tl.full([BLOCK], epsilon, tl.float32)
    if STARTS:
        wide = at * (VALUES + 1)
        above = _rows(before, wide, value, inside[:, None] & in_values)
        total += tl.load(before + wide + VALUES, mask=inside, other=0.0)
    for start in range(0, (tl.program_id(0) + 1) * BLOCK, BLOCK):
        other = start + tl.arange(0, BLOCK)
        there = (batch * length + other) * HEADS + head
        exists = (other < length)[:, None]
        keys = _rows(k, there * KEYS, unit, exists & in_keys)
        values = _rows(v, there * VALUES, value, exists & in_values)
        _, p, _ = _scores(queries, keys, row, other, length, factor, DOT)
        above += tl.dot(p.to(values.dtype), values, input_precision=DOT)
        total += tl.sum(p, 1)
    out = above / total[:, None]
    place = o + (at * VALUES)[:, None] + value[None, :]
    tl.store(place, out.to(o.dtype.element_ty), mask=inside[:, None] & in_values)
    tl.store(below + at, total, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def quotient_back_kernel(
    o,  # above / below [rows, V]
    below,  # [rows] float32
    d_o,  # [rows, V]
    d_above,  # [rows, V], written, as all below
    d_below,  # [rows] float32
    d_before,  # [rows, V + 1] float32, with STARTS: both gradients
    rows,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK: tl.constexpr,  # rows
    STARTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.arange(0, OUT)
    inside = row < rows
    mask = inside[:, None] & (value < VALUES)[None, :]
    divisor = tl.load(below + row, mask=inside, other=1.0)
    above = tl.div_rn(_rows(d_o, row * VALUES, value, mask).to(tl.float32), divisor[:, None])
    total = -tl.sum(above * _rows(o, row * VALUES, value, mask).to(tl.float32), 1)
    place = (row * VALUES)[:, None] + value[None, :]
    tl.store(d_above + place, above.to(d_above.dtype.element_ty), mask=mask)
    tl.store(d_below + row, total, mask=inside)
    if STARTS:
        wide = row * (VALUES + 1)
        tl.store(d_before + wide[:, None] + value[None, :], above, mask=mask)
        tl.store(d_before + wide + VALUES, total, mask=inside)


@triton.jit
def _d_scores(s, seen, d_above, values, d_total, DOT: tl.constexpr):
    """Gradient of the scores, through p."""
    d_p = tl.dot(d_above, tl.trans(values), input_precision=DOT) + d_total[:, None]
    return tl.where(seen, d_p * (1.0 + s), 0.0)


@triton.jit(do_not_specialize=["length"])
def based_back_kernel(
    q,  # [B, T, H, K]
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    d_above,  # of the numerator [B, T, H, V]
    d_below,  # of the denominator [B, T, H] float32
    d_q,  # [B, T, H, K], written, as all below
    d_k,  # [B, T, H, K]
    d_v,  # [B, T, H, V]
    length,
    factor,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,
):
    """A block of steps: as queries over the keys before them, then as keys over later queries."""
    dtype = q.dtype.element_ty
    batch = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = (batch * length + row) * HEADS + head
    inside = row < length
    narrow = inside[:, None] & in_keys
    wide = inside[:, None] & in_values
    queries = _rows(q, at * KEYS, unit, narrow)
    own_keys = _rows(k, at * KEYS, unit, narrow)
    own_values = _rows(v, at * VALUES, value, wide)
    own_above = _rows(d_above, at * VALUES, value, wide)
    own_below = tl.load(d_below + at, mask=inside, other=0.0)

    d_queries = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in range(0, (tl.program_id(0) + 1) * BLOCK, BLOCK):
        other = start + tl.arange(0, BLOCK)
        there = (batch * length + other) * HEADS + head
        exists = (other < length)[:, None]
        keys = _rows(k, there * KEYS, unit, exists & in_keys)
        values = _rows(v, there * VALUES, value, exists & in_values)
        s, _, seen = _scores(queries, keys, row, other, length, factor, DOT)
        d_s = _d_scores(s, seen, own_above, values, own_below, DOT)
        d_queries += tl.dot(d_s.to(dtype), keys, input_precision=DOT)
    place = (at * KEYS)[:, None] + unit[None, :]
    tl.store(d_q + place, (factor * d_queries).to(dtype), mask=narrow)

    d_keys = tl.zeros([BLOCK, WIDTH], tl.float32)
    d_values = tl.zeros([BLOCK, OUT], tl.float32)
    for start in range(tl.program_id(0) * BLOCK, length, BLOCK):
        other = start + tl.arange(0, BLOCK)
        there = (batch * length + other) * HEADS + head
        exists = (other < length)[:, None]
        later = _rows(q, there * KEYS, unit, exists & in_keys)
        above = _rows(d_above, there * VALUES, value, exists & in_values)
        below = tl.load(d_below + there, mask=other < length, other=0.0)
        s, p, seen = _scores(later, own_keys, other, row, length, factor, DOT)
        d_s = _d_scores(s, seen, above, own_values, below, DOT)
        d_values += tl.dot(tl.trans(p.to(dtype)), above, input_precision=DOT)
        d_keys += tl.dot(tl.trans(d_s.to(dtype)), later, input_precision=DOT)
    tl.store(d_k + place, (factor * d_keys).to(dtype), mask=narrow)
    tl.store(d_v + (at * VALUES)[:, None] + value[None, :], d_values.to(dtype), mask=wide)


@triton.jit(do_not_specialize=["length"])
def based_state_kernel(
    k,  # [B, T, H, K]
    v,  # [B, T, H, V]
    initial,  # [B, H, F, V + 1] float32
    state,  # [B, H, F, V + 1] float32, written: initial + Σ φ(k) [v, 1]ᵀ
    length,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,  # a program takes products with so many units of the key, a power of two
    STARTS: tl.constexpr,
    DOT: tl.constexpr,
):
    """Rows i of φ: products k_i k_j with j ≥ i, and last the key itself and 1."""
    batch = tl.program_id(1).to(tl.int64) // HEADS
    head = tl.program_id(1) % HEADS
    first = tl.program_id(0) * GROUP
    group = first + tl.arange(0, GROUP)
    unit = tl.arange(0, WIDTH)
    value = tl.arange(0, OUT)
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    features: tl.constexpr = 1 + KEYS + KEYS * (KEYS + 1) // 2
    here = tl.program_id(1).to(tl.int64) * features * (VALUES + 1)
    total = tl.zeros([GROUP * WIDTH, OUT], tl.float32)
    below = tl.zeros([GROUP * WIDTH], tl.float32)
    ones = tl.zeros([OUT], tl.float32)
    for start in range(0, length, BLOCK):
        t = start + tl.arange(0, BLOCK)
        at = (batch * length + t) * HEADS + head
        inside = (t < length)[:, None]
        keys = _rows(k, at * KEYS, unit, inside & in_keys)
        values = _rows(v, at * VALUES, value, inside & in_values)
        factor = tl.load(
            k + (at * KEYS)[:, None] + group[None, :],
            mask=inside & (group < KEYS)[None, :],
            other=1.0,
        )
        pairs = factor.to(tl.float32)[:, :, None] * keys.to(tl.float32)[:, None, :]
        pairs = tl.reshape(pairs, [BLOCK, GROUP * WIDTH])
        below += tl.sum(pairs, 0)
        ones += tl.sum(values.to(tl.float32), 0)
        total += tl.dot(tl.trans(pairs.to(values.dtype)), values, input_precision=DOT)
    root: tl.constexpr = KEYS**-0.25
    pair = tl.arange(0, GROUP * WIDTH)
    i = first + pair // WIDTH
    j = pair % WIDTH
    single = i == KEYS
    weight = tl.where(single, root, tl.where(j == i, root * root * 0.5**0.5, root * root))
    row = tl.where(single, 1 + j, 1 + KEYS + i * KEYS - i * (i - 1) // 2 + j - i)
    mine = (j < KEYS) & (single | ((i < KEYS) & (j >= i)))
    place = here + row * (VALUES + 1)
    wide = place[:, None] + value[None, :]
    mask = mine[:, None] & in_values
    total *= weight[:, None]
    below *= weight
    if STARTS:
        total += tl.load(initial + wide, mask=mask, other=0.0)
        below += tl.load(initial + place + VALUES, mask=mine, other=0.0)
    tl.store(state + wide, total, mask=mask)
    tl.store(state + place + VALUES, below, mask=mine)
    if first + GROUP > KEYS:
        count = length * 1.0
        if STARTS:
            ones += tl.load(initial + here + value, mask=value < VALUES, other=0.0)
            count += tl.load(initial + here + VALUES)
        tl.store(state + here + value, ones, mask=value < VALUES)
        tl.store(state + here + VALUES, count)
