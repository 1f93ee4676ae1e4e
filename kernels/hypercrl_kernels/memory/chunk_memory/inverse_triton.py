"""The delta rules' inverse (I + L)⁻¹: of one chunk, and as a kernel of all chunks at once."""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import chunk_of, decays, log_gates
from hypercrl_kernels.memory.chunks_triton import sums as sums_of


@triton.jit
def _doubled(block, inverse, unit, DOT: tl.constexpr):
    """Newton's 2T − T (T + lower T): of inverted blocks of n rows, those of 2n.

    For bfloat16 it takes products of float16, whose mantissa is that of TF32, and writes it T − T
    (T + lower T − I): what is rounded then is T, exactly as the difference sees it, and the
    difference, which is small, where else it is something near I.
    """
    if DOT == "tf32x3":
        once = tl.dot(block, inverse, acc=inverse, input_precision=DOT)
        return 2.0 * inverse - tl.dot(inverse, once, input_precision=DOT)
    half = inverse.to(tl.float16)
    inverse = half.to(tl.float32)
    beyond = tl.dot(block.to(tl.float16), half, acc=inverse - unit).to(tl.float16)
    return inverse - tl.dot(half, beyond)


@triton.jit
def inverse_of(lower, t, CHUNK: tl.constexpr, DOT: tl.constexpr):
    """T = (I + lower)⁻¹: first the blocks of 16 rows on its diagonal, as a batch, then all of it.

    Each begins with inverted blocks of n rows and doubles them. That is as exact as forward
    substitution as long as it doubles no more than three times; begun with single rows it is the
    Neumann series, which loses all digits where keys are correlated.
    """
    BLOCKS: tl.constexpr = CHUNK // 16
    step = tl.reshape(t, [BLOCKS, 16])
    row = step[:, :, None]
    column = step[:, None, :]
    own = (tl.arange(0, BLOCKS)[:, None] == tl.arange(0, BLOCKS)[None, :])[:, None, :, None]
    block = tl.reshape(lower, [BLOCKS, 16, BLOCKS, 16])
    block = tl.sum(tl.where(own, block, 0.0), 2)
    unit = tl.where(row == column, 1.0, 0.0)
    inverse = unit - tl.where((row > column) & ((row ^ column) == 1), block, 0.0)
    for _ in tl.static_range(3):
        inverse = _doubled(block, inverse, unit, DOT)
    inverse = tl.reshape(tl.where(own, inverse[:, :, None, :], 0.0), [CHUNK, CHUNK])
    unit = tl.where(t[:, None] == t[None, :], 1.0, 0.0)
    for _ in tl.static_range((BLOCKS >= 2) + (BLOCKS >= 4)):
        inverse = _doubled(lower, inverse, unit, DOT)
    return inverse


@triton.jit(do_not_specialize=["length", "segments"])
def inverse_kernel(
    k,  # [B, T, H, K]
    log_decay,  # [B, T, H]
    beta,  # [B, T, H]
    cu_seqlens,  # [N + 1]
    inverse,  # [slots, H, C, C], written: (I + KKᵀ∘P β)⁻¹
    sums,  # [slots, H, C] float32, written: of the log decays up to each step, in base 2
    length,
    segments,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,  # K, padded
    CHUNK: tl.constexpr,
    DECAY: tl.constexpr,
    STRENGTH: tl.constexpr,
    BEFORE: tl.constexpr,  # the error before decay, else after
    VARLEN: tl.constexpr,
    WHOLE: tl.constexpr,  # all chunks are, so that no row needs a mask
    SEARCH: tl.constexpr,  # binary digits of the number of segments
    DOT: tl.constexpr,
):
    """A program takes one chunk of one head: the walks, which cannot be parallel, only read it."""
    INVERT: tl.constexpr = "tf32x3" if k.dtype.element_ty == tl.float16 else DOT
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
    by_key = i[:, None] * (HEADS * KEYS) + unit[None, :]
    mask = inside[:, None] & (unit < KEYS)[None, :]
    keys = tl.load(k + first * KEYS + by_key, mask=mask, other=0.0)
    lower = tl.dot(keys, tl.trans(keys), input_precision=DOT)
    earlier = i[:, None] > i[None, :]
    if DECAY:
        gate = log_gates(log_decay + first + i * HEADS, inside).to(tl.float32)
        high, low = sums_of(gate)
        tl.store(sums + index * CHUNK + i, high)
        before, low_before = high, low
        if BEFORE:
            gate = log_gates(log_decay + first + (i - 1) * HEADS, inside & (i > 0))
            before, low_before = sums_of(gate.to(tl.float32))
        lower *= decays(before, low_before, high, low, earlier, DOT == "tf32x3")
    else:
        lower = tl.where(earlier, lower, 0.0)
    if STRENGTH:
        lower *= tl.load(beta + first + i * HEADS, mask=inside, other=0.0).to(tl.float32)[None, :]
    found = inverse_of(lower, i, CHUNK, INVERT)
    square = i[:, None] * CHUNK + i[None, :]
    tl.store(inverse + index * (CHUNK * CHUNK) + square, found.to(inverse.dtype.element_ty))
