"""The update of a sampling planner as one Triton kernel.

A program owns a few coordinates of one robot's sequences and selects the elites for itself: that
costs less than handing a selection from one launch to the next. Nothing is sorted: the threshold
that the elites reach is found a few bits at a time, and sums run over all samples under a mask.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

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
def _selection(key, elites, BITS: tl.constexpr):
    """True for exactly `elites` of the largest keys, of equal ones the first."""
    # The largest threshold that enough keys reach, a few bits at a time.
    threshold = _LOWEST
    for i in range(32 // BITS):
        shift = 32 - BITS - BITS * i
        candidate = threshold + (tl.arange(0, 1 << BITS) << shift)
        reached = tl.sum((key[:, None] >= candidate[None, :]).to(tl.int32), 0) >= elites
        # Enough keys reach the first one, and those that do are the first ones.
        threshold += (tl.sum(reached.to(tl.int32), 0) - 1) << shift
    above = key > threshold
    equal = (key == threshold).to(tl.int32)
    missing = elites - tl.sum(above.to(tl.int32), 0)
    return above | ((equal == 1) & (tl.cumsum(equal, 0) <= missing))


@triton.jit(do_not_specialize=["samples", "size", "elites"])
def elites_kernel(
    returns,  # [B, K] float32
    actions,  # [B, K, size] float32
    min_std,  # [CONTROL] float32
    mean,  # [B, size] float32, written
    std,  # [B, size] float32, written
    best,  # [B, size] float32, written
    samples,  # K
    size,  # H A
    elites,
    CONTROL: tl.constexpr,
    SAMPLES: tl.constexpr,  # K padded to a power of two
    COORDINATES: tl.constexpr,
    BITS: tl.constexpr,  # of the threshold that are found in one round: 1, 2, 4 or 8
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
    values = tl.load(
        actions + sample[:, None] * size + coordinate[None, :],
        mask=inside[:, None] & valid[None, :],
        other=0.0,
    )
    taken = _selection(key, elites, BITS)[:, None]
    winner = tl.min(tl.where(key == tl.max(key, 0), sample, SAMPLES), 0)
    values = tl.where(taken, values, 0.0)
    average = tl.sum(values, 0) / elites
    deviation = tl.where(taken, values - average[None, :], 0.0)
    spread = tl.sqrt(tl.sum(deviation * deviation, 0) / elites)
    floor = tl.load(min_std + coordinate % CONTROL)
    out = robot * size + coordinate
    tl.store(mean + out, average, mask=valid)
    tl.store(std + out, tl.maximum(spread, floor), mask=valid)
    tl.store(best + out, tl.load(actions + winner * size + coordinate, mask=valid), mask=valid)
