"""The gated scan as Triton kernels: a program walks a few channels of a sequence, tile by tile."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl

from hypercrl_kernels.memory.chunks_triton import segment_of


@triton.jit
def _after(decay, total, next_decay, next_total):
    """Two stretches of steps, one after the other, as one."""
    return decay * next_decay, next_decay * total + next_total


@triton.jit(do_not_specialize=["length"])
def scan_kernel(
    x,  # [B, T, CHANNELS]
    log_decay,  # [B, T, CHANNELS]
    initial,  # [N, CHANNELS] float32
    cu_seqlens,  # [N + 1]
    h,  # [B, T, CHANNELS], written
    final,  # [N, CHANNELS] float32, written
    length,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # steps
    STARTS: tl.constexpr,  # from an initial state, else from zeros
    VARLEN: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    begin, steps, _ = segment_of(cu_seqlens, segment, length, TILE, VARLEN)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = channel < CHANNELS
    state = tl.zeros([BLOCK], tl.float32)
    if STARTS:
        state = tl.load(initial + segment * CHANNELS + channel, mask=exists, other=0.0)
    i = tl.arange(0, TILE)
    for tile in range(0, tl.cdiv(steps, TILE)):
        t = tile * TILE + i
        mask = (t < steps)[:, None] & exists[None, :]
        at = (begin + t)[:, None] * CHANNELS + channel[None, :]
        gate = tl.load(log_decay + at, mask=mask, other=0.0).to(tl.float32)
        total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        decay, total = tl.associative_scan((tl.exp(gate), total), 0, _after)
        total += decay * state[None, :]
        tl.store(h + at, total.to(h.dtype.element_ty), mask=mask)
        state = tl.sum(tl.where((i == TILE - 1)[:, None], total, 0.0), 0)
    tl.store(final + segment * CHANNELS + channel, state, mask=exists)


@triton.jit(do_not_specialize=["length"])
def scan_back_kernel(
    h,  # [B, T, CHANNELS]
    log_decay,  # [B, T, CHANNELS]
    initial,  # [N, CHANNELS] float32
    d_h,  # [B, T, CHANNELS]
    d_final,  # [N, CHANNELS] float32
    cu_seqlens,  # [N + 1]
    d_x,  # [B, T, CHANNELS], written, as all below
    d_decay,  # [B, T, CHANNELS]
    d_initial,  # [N, CHANNELS] float32
    length,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    STARTS: tl.constexpr,  # from an initial state, which has a gradient
    ENDS: tl.constexpr,  # the final state has a gradient
    VARLEN: tl.constexpr,
):
    segment = tl.program_id(1).to(tl.int64)
    begin, steps, _ = segment_of(cu_seqlens, segment, length, TILE, VARLEN)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = channel < CHANNELS
    place = segment * CHANNELS + channel
    first = tl.zeros([BLOCK], tl.float32)
    if STARTS:
        first = tl.load(initial + place, mask=exists, other=0.0)
    d_state = tl.zeros([BLOCK], tl.float32)  # of the state at the tile's end, through later steps
    if ENDS:
        d_state = tl.load(d_final + place, mask=exists, other=0.0)
    i = tl.arange(0, TILE)
    tiles = tl.cdiv(steps, TILE)
    for back in range(0, tiles):
        t = (tiles - 1 - back) * TILE + i
        mask = (t < steps)[:, None] & exists[None, :]
        later = mask & (t + 1 < steps)[:, None] & (i < TILE - 1)[:, None]
        at = (begin + t)[:, None] * CHANNELS + channel[None, :]
        gate = tl.load(log_decay + at, mask=mask, other=0.0).to(tl.float32)
        following = tl.load(log_decay + at + CHANNELS, mask=later, other=0.0).to(tl.float32)
        total = tl.load(d_h + at, mask=mask, other=0.0).to(tl.float32)
        before = tl.load(h + at - CHANNELS, mask=mask & (t > 0)[:, None], other=0.0)
        before = tl.where((t == 0)[:, None], first[None, :], before.to(tl.float32))
        decay, total = tl.associative_scan((tl.exp(following), total), 0, _after, reverse=True)
        total += decay * d_state[None, :]
        kept = tl.exp(gate)
        tl.store(d_x + at, total.to(d_x.dtype.element_ty), mask=mask)
        tl.store(d_decay + at, (kept * before * total).to(d_decay.dtype.element_ty), mask=mask)
        d_state = tl.sum(tl.where((i == 0)[:, None], kept * total, 0.0), 0)
    if STARTS:
        tl.store(d_initial + place, d_state, mask=exists)
