"""The update of a sampling planner as one Triton kernel.

A program owns a few coordinates of one robot's sequences and selects the elites for itself: that
costs less than handing a selection from one launch to the next. Nothing is sorted: the threshold
that the elites reach is found a few bits at a time, and sums run over all samples under a mask. Its
coordinates of the next samples are drawn by the same program, which knows their distribution.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

_LOWEST = tl.constexpr(-(2**31))


@triton.jit
def _ordered_bits(x):
    """int32 in the order of the floats: not a number and −inf lowest, both zeros equal."""
    x = tl.where(x != x, -float("inf"), x)
    x = tl.where(x == 0.0, 0.0, x)
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _selection(key, inside, elites, BITS: tl.constexpr):
    """True for exactly `elites` of the largest keys, of equal ones the first.

    The threshold that they reach is between the least key, which all reach, and beyond the largest,
    which none does: a few bits of that distance are found in a round, until nothing is between what
    enough keys reach and what too few do, or exactly as many as are wanted reach it.
    """
    low = tl.min(tl.where(inside, key, 2147483647), 0).to(tl.int64)
    high = tl.max(key, 0).to(tl.int64) + 1
    reach = tl.sum(inside.to(tl.int32), 0)
    while (high - low > 1) & (reach != elites):
        apart = (high - low + (1 << BITS) - 1) >> BITS
        candidate = low + apart * tl.arange(0, 1 << BITS)
        # Those beyond the highest are reached by too few keys as well.
        bounded = tl.minimum(candidate, high).to(tl.int32)
        counts = tl.sum((key[:, None] >= bounded[None, :]).to(tl.int32), 0)
        enough = counts >= elites
        reach = tl.min(tl.where(enough, counts, 2147483647), 0)
        low += apart * (tl.sum(enough.to(tl.int32), 0) - 1)
        high = tl.minimum(high, low + apart)
    threshold = low.to(tl.int32)
    taken = inside & (key >= threshold)
    if reach != elites:
        above = key > threshold
        equal = (inside & (key == threshold)).to(tl.int32)
        missing = elites - tl.sum(above.to(tl.int32), 0)
        taken = above | ((equal == 1) & (tl.cumsum(equal, 0) <= missing))
    return taken


@triton.jit(do_not_specialize=["samples", "size", "elites"])
def elites_kernel(
    returns,  # [B, K] float32
    actions,  # [B, K, size] float32
    min_std,  # [CONTROL] float32
    mean,  # [B, size] float32, written
    std,  # [B, size] float32, written
    best,  # [B, size] float32, written
    noise,  # [B, K, size] float32, of the next samples
    low,  # [CONTROL] float32
    high,  # [CONTROL] float32
    drawn,  # [B, K, size] float32, the next samples, written
    samples,  # K
    size,  # H A
    elites,
    CONTROL: tl.constexpr,
    SAMPLES: tl.constexpr,  # K padded to a power of two
    COORDINATES: tl.constexpr,
    BITS: tl.constexpr,  # of the threshold that are found in one round
    DRAWS: tl.constexpr,  # whether the next samples are drawn
):
    robot = tl.program_id(1).to(tl.int64)
    returns += robot * samples
    actions += robot * samples * size
    sample = tl.arange(0, SAMPLES)
    inside = sample < samples
    coordinate = tl.program_id(0) * COORDINATES + tl.arange(0, COORDINATES)
    valid = coordinate < size
    key = _ordered_bits(tl.load(returns + sample, mask=inside, other=0.0))
    key = tl.where(inside, key, _LOWEST)
    # All samples are read, not the elites alone: the reads then run beside the selection.
    own = sample[:, None] * size + coordinate[None, :]
    owned = inside[:, None] & valid[None, :]
    values = tl.load(actions + own, mask=owned, other=0.0)
    if DRAWS:
        draw = tl.load(noise + robot * samples * size + own, mask=owned, other=0.0)
    taken = _selection(key, inside, elites, BITS)[:, None]
    winner = tl.min(tl.where(inside & (key == tl.max(key, 0)), sample, SAMPLES), 0)
    values = tl.where(taken, values, 0.0)
    average = tl.sum(values, 0) / elites
    deviation = tl.where(taken, values - average[None, :], 0.0)
    spread = tl.sqrt(tl.sum(deviation * deviation, 0) / elites)
    spread = tl.maximum(spread, tl.load(min_std + coordinate % CONTROL))
    out = robot * size + coordinate
    tl.store(mean + out, average, mask=valid)
    tl.store(std + out, spread, mask=valid)
    tl.store(best + out, tl.load(actions + winner * size + coordinate, mask=valid), mask=valid)
    if DRAWS:
        draw = average[None, :] + spread[None, :] * draw
        draw = tl.maximum(draw, tl.load(low + coordinate % CONTROL)[None, :])
        draw = tl.minimum(draw, tl.load(high + coordinate % CONTROL)[None, :])
        tl.store(drawn + robot * samples * size + own, draw, mask=owned)
