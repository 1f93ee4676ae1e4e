"""What Triton kernels that work in chunks share: places, gates and the gradients of gates."""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl


@triton.jit
def segment_of(cu_seqlens, segment, length, CHUNK: tl.constexpr, VARLEN: tl.constexpr):
    """Of a segment: its first step, its length, and its first slot."""
    if VARLEN:
        begin = tl.load(cu_seqlens + segment).to(tl.int64)
        end = tl.load(cu_seqlens + segment + 1).to(tl.int64)
        return begin, (end - begin).to(tl.int32), begin // CHUNK + segment
    return segment * length, length, segment * ((length + CHUNK - 1) // CHUNK)


@triton.jit
def sequence_of(
    program, cu_seqlens, length,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, VARLEN: tl.constexpr,
):  # fmt: skip
    """A program's segment and head, and of the segment what `segment_of` says."""
    segment = program.to(tl.int64) // HEADS
    head = program % HEADS
    begin, steps, slot = segment_of(cu_seqlens, segment, length, CHUNK, VARLEN)
    return segment, head, begin, steps, slot


@triton.jit
def chunk_of(
    program, cu_seqlens, length, segments,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, VARLEN: tl.constexpr, SEARCH: tl.constexpr,
):  # fmt: skip
    """Of a program for one chunk and head: slot, head, the segment's first step and its length, and
    which of its chunks this is; a slot that holds none has a chunk beyond the end."""
    slot = program.to(tl.int64) // HEADS
    head = program % HEADS
    if VARLEN:
        segment = slot * 0  # the last one whose first slot is not beyond this: binary digits of it
        for digit in tl.static_range(SEARCH):
            later = segment + (1 << (SEARCH - 1 - digit))
            begin = tl.load(cu_seqlens + later, mask=later < segments, other=0).to(tl.int64)
            here = (later < segments) & (begin // CHUNK + later <= slot)
            segment = tl.where(here, later, segment)
    else:
        segment = slot // ((length + CHUNK - 1) // CHUNK)
    begin, steps, first = segment_of(cu_seqlens, segment, length, CHUNK, VARLEN)
    return slot, head, begin, steps, (slot - first).to(tl.int32)


@triton.jit
def state_of(unit, value, KEYS: tl.constexpr, VALUES: tl.constexpr):
    """Which of these keys, values and numbers of a state there are, and where the last lie."""
    in_keys = (unit < KEYS)[None, :]
    in_values = (value < VALUES)[None, :]
    in_state = (unit < KEYS)[:, None] & in_values
    return in_keys, in_values, in_state, unit[:, None] * VALUES + value[None, :]


SHUT = tl.constexpr(-128.0)
"""A log gate from here on keeps nothing: e^-128 is zero in float32, and a chunk's sums of such
gates still have the digits that open gates beside them need. −∞ would leave ∞ − ∞ in differences of
sums, −1e7 no digits. A power of two, it is exact in every precision that gates are rounded to."""


@triton.jit
def log_gates(at, mask):
    """Log gates there, zero beyond the mask, and `SHUT` for less; TRITON_DEBUG=1 finds those above
    zero."""
    gate = tl.load(at, mask=mask, other=0.0)
    tl.device_assert(gate <= 0.0, "log_decay and log_momentum have to be ≤ 0")
    return tl.where(gate.to(tl.float32) < SHUT, SHUT, gate).to(gate.dtype)


@triton.jit
def gates_of(
    log_decay, beta, log_momentum, at, t, inside,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, DECAY: tl.constexpr, STRENGTH: tl.constexpr,
    MOMENTUM: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """Of a chunk's steps t [C]: log decay, that of the step before, log momentum, write strength.

    Steps beyond the end decay nothing and write nothing. BEFORE asks for the second. With DECAY 2
    there is one log decay for a head, and no second.
    """
    decay = tl.zeros([CHUNK], tl.float32)
    previous = decay
    momentum = decay
    strength = tl.where(inside, 1.0, 0.0)
    if DECAY:
        decay = log_gates(log_decay + (at % HEADS if DECAY == 2 else at), inside).to(tl.float32)
        if BEFORE:
            again = inside & (t % CHUNK > 0)
            previous = log_gates(log_decay + at - HEADS, again).to(tl.float32)
    if MOMENTUM:
        momentum = log_gates(log_momentum + at, inside).to(tl.float32)
    if STRENGTH:
        strength = tl.load(beta + at, mask=inside, other=0.0).to(tl.float32)
    return decay, previous, momentum, strength


@triton.jit
def sums(gate):
    """Inclusive sums of log gates in base 2: float32 and what that rounds off."""
    exact = tl.cumsum(gate.to(tl.float64) * 1.4426950408889634, 0)
    high = exact.to(tl.float32)
    return high, (exact - high.to(tl.float64)).to(tl.float32)


@triton.jit
def decays(high, low, high_before, low_before, pairs, EXACT: tl.constexpr):
    """2 to the differences of sums for those pairs, [C, C], zero for others.

    EXACT takes both parts of the sums, or digits cancel where gates are large; half precision
    would not show them.
    """
    gap = high[:, None] - high_before[None, :]
    if EXACT:
        gap += low[:, None] - low_before[None, :]
    return tl.exp2(tl.where(pairs, gap, float("-inf")))


@triton.jit
def decay_of(high, low):
    """2 to the sums."""
    power = tl.exp2(high)
    return power + 0.6931471805599453 * low * power


@triton.jit
def last_of(x, t, CHUNK: tl.constexpr):
    """x [C] in the chunk's last row."""
    return tl.sum(tl.where(t % CHUNK == CHUNK - 1, x, 0.0), 0)


@triton.jit
def weights_of(
    decay,  # [C] log gates, zero beyond the end
    previous,  # [C] the same, one step earlier, zero in the first
    momentum,  # [C]
    t,  # [C] the steps; as they differ from chunk to chunk, no mask is kept in registers for all
    inside,  # [C]
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    MOMENTUM: tl.constexpr,
    AFTER: tl.constexpr,
    DOT: tl.constexpr,
):
    """The row vectors, what G and P are made of, and both.

    G_tj is the weight at which step t reads what entered at j, P_tj that at which it predicts; they
    are products of the decay up to a read, that up to a prediction, and the momentum.
    """
    EXACT: tl.constexpr = DOT == "tf32x3"
    now = t[:, None] >= t[None, :]
    earlier = t[:, None] > t[None, :]
    last = t % CHUNK == CHUNK - 1
    a = tl.full([CHUNK], 1.0, tl.float32)
    r = a
    c = a
    if DECAY:
        high, low = sums(decay)
        a = decay_of(high, low)
        kept = decays(high, low, high, low, now, EXACT)
        c = decay_of(last_of(high, t, CHUNK) - high, last_of(low, t, CHUNK) - low)
        if AFTER:
            r = a
            kept_before = tl.where(earlier, kept, 0.0)
        else:
            high_before, low_before = sums(previous)
            r = decay_of(high_before, low_before)
            kept_before = decays(high_before, low_before, high, low, earlier, EXACT)
    else:
        kept = tl.where(now, 1.0, 0.0)
        kept_before = tl.where(earlier, 1.0, 0.0)
    read = kept
    predict = kept_before
    moved = kept
    d = r
    m = r
    if MOMENTUM:
        high, low = sums(momentum)
        m = decay_of(high, low)
        moved = decays(high, low, high, low, now, EXACT)
        d = decay_of(last_of(high, t, CHUNK) - high, last_of(low, t, CHUNK) - low)
        # Steps beyond the end add nothing to the memory.
        moved = tl.where(inside[:, None], moved, 0.0)
        read = tl.dot(kept, moved, input_precision=DOT)
        predict = tl.dot(kept_before, moved, input_precision=DOT)
        c = tl.sum(tl.where(last[:, None], read, 0.0), 0)
    return a, r, c, d, m, kept, kept_before, moved, read, predict


@triton.jit
def refined(x, inverse, lower, right, DOT: tl.constexpr):
    """One step of iterative refinement of x = inverse right, which solves (I + lower) x = right.

    An explicit inverse leaves residuals as large as its entries, where substitution leaves those of
    lower; one step brings them down to that (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, chapter 12).
    """
    left = right - x - tl.dot(lower, x, input_precision="ieee")
    return tl.dot(inverse, left, acc=x, input_precision=DOT)


@triton.jit
def gate_gradients(
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
    t,
    inside,
    CHUNK: tl.constexpr,
    MOMENTUM: tl.constexpr,
    ERROR: tl.constexpr,
    DOT: tl.constexpr,
):
    """Gradients [C] of log_decay and log_momentum, through all that `weights_of` makes of them."""
    strict = t[:, None] > t[None, :]
    last = t % CHUNK == CHUNK - 1
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
