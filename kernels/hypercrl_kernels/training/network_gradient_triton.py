"""A dynamics network forward, its squared error and its backward pass as one Triton kernel.

A program takes ROWS rows of the batch through all layers and back, and writes its share of the
gradient. A register tensor cannot be sliced, so what a product runs over, BLOCK at a time, goes
through scratch memory of the program, which stays in the cache.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit
def _keep(scratch, value, PADDED: tl.constexpr, ROWS: tl.constexpr, WIDEST: tl.constexpr):
    """Write [ROWS, PADDED], for all threads of the program to read."""
    at = tl.arange(0, ROWS)[:, None] * WIDEST + tl.arange(0, PADDED)[None, :]
    tl.debug_barrier()
    tl.store(scratch + at, value)
    tl.debug_barrier()


@triton.jit
def _forward(
    flat, scratch, IN: tl.constexpr, OUT: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    WIDEST: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """x W^T + b, [ROWS, PADDED], of x in scratch."""
    row, unit, k = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED), tl.arange(0, BLOCK)
    total = tl.zeros([ROWS, PADDED], tl.float32)
    for start in tl.range(0, IN, BLOCK, num_stages=STAGES):
        column = start + k
        x = tl.load(scratch + row * WIDEST + column[None, :])
        weight = tl.load(
            flat + unit[None, :] * IN + column[:, None],
            mask=(unit < OUT)[None, :] & (column < IN)[:, None],
            other=0.0,
        )
        total = tl.dot(x, weight, total, input_precision="tf32x3")
    return total + tl.load(flat + OUT * IN + unit, mask=unit < OUT, other=0.0)[None, :]


@triton.jit
def _backward(
    flat, to, slopes, below, IN: tl.constexpr, OUT: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, WIDEST: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write a layer's gradient; the slope of what is below, [ROWS, PADDED]. Slopes in scratch."""
    row, unit, k = tl.arange(0, ROWS)[:, None], tl.arange(0, PADDED), tl.arange(0, BLOCK)
    total = tl.zeros([ROWS, PADDED], tl.float32)
    for start in tl.range(0, OUT, BLOCK, num_stages=STAGES):
        output = start + k
        inside = (output < OUT)[:, None] & (unit < IN)[None, :]
        at = output[:, None] * IN + unit[None, :]
        slope = tl.load(slopes + row * WIDEST + output[None, :])
        weight = tl.load(flat + at, mask=inside, other=0.0)
        total = tl.dot(slope, weight, total, input_precision="tf32x3")
        gradient = tl.dot(tl.trans(slope), below, input_precision="tf32x3")
        tl.store(to + at, gradient, mask=inside)
        tl.store(to + OUT * IN + output, tl.sum(slope, 0), mask=output < OUT)
    return total


@triton.jit(do_not_specialize=["count", "loss_scale"])
def network_gradient_kernel(
    weights,  # W1 b1 W2 b2 … float32
    obs,  # [count, O]
    action,  # [count, A]
    next_obs,  # [count, O]
    input_mean,  # [O + A]
    input_scale,
    target_mean,  # [O]
    target_scale,
    scratch,  # [programs, layers + 1, ROWS, WIDEST]
    losses,  # [programs], written
    gradients,  # [programs, as `weights`], written
    count,
    loss_scale,
    obs_stride,  # from row to row
    action_stride,
    next_stride,
    NUMEL: tl.constexpr,  # of `weights`
    SIZES: tl.constexpr,  # O + A, …, O
    OFFSETS: tl.constexpr,  # of each layer in `weights`
    PADDINGS: tl.constexpr,  # SIZES, powers of two
    WIDEST: tl.constexpr,  # the largest of them
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    layers: tl.constexpr = len(OFFSETS)
    O: tl.constexpr = SIZES[layers]  # noqa: E741
    slot: tl.constexpr = ROWS * WIDEST
    scratch += tl.program_id(0) * (layers + 1) * slot
    gradients += tl.program_id(0) * NUMEL
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    valid = (row < count)[:, None]

    # Scratch is read BLOCK columns at a time, beyond a layer's width too: there it is zero.
    unit = tl.arange(0, WIDEST)
    is_obs, is_action = (unit < O)[None, :], ((unit >= O) & (unit < SIZES[0]))[None, :]
    x = tl.load(
        obs + row[:, None] * obs_stride + unit[None, :], mask=valid & is_obs, other=0.0
    ) + tl.load(
        action + row[:, None] * action_stride + unit[None, :] - O,
        mask=valid & is_action,
        other=0.0,
    )
    mean = tl.load(input_mean + unit, mask=unit < SIZES[0], other=0.0)
    scale = tl.load(input_scale + unit, mask=unit < SIZES[0], other=1.0)
    x = tl.where(valid, (x - mean[None, :]) / scale[None, :], 0.0)
    _keep(scratch, x, WIDEST, ROWS, WIDEST)
    for i in tl.static_range(layers - 1):
        z = _forward(
            weights + OFFSETS[i], scratch + i * slot,
            SIZES[i], SIZES[i + 1], WIDEST, ROWS, WIDEST, BLOCK, STAGES,
        )  # fmt: skip
        _keep(scratch + (i + 1) * slot, tl.maximum(z, 0.0), WIDEST, ROWS, WIDEST)
    last: tl.constexpr = layers - 1
    outputs = _forward(
        weights + OFFSETS[last], scratch + last * slot,
        SIZES[last], O, PADDINGS[layers], ROWS, WIDEST, BLOCK, STAGES,
    )  # fmt: skip

    dimension = tl.arange(0, PADDINGS[layers])
    used = dimension < O
    both = valid & used[None, :]
    change = tl.load(
        next_obs + row[:, None] * next_stride + dimension[None, :], mask=both, other=0.0
    )
    change -= tl.load(obs + row[:, None] * obs_stride + dimension[None, :], mask=both, other=0.0)
    mean = tl.load(target_mean + dimension, mask=used, other=0.0)
    scale = tl.load(target_scale + dimension, mask=used, other=1.0)
    error = tl.where(both, outputs - (change - mean[None, :]) / scale[None, :], 0.0)
    tl.store(losses + tl.program_id(0), tl.sum(tl.sum(error * error, 1), 0) * loss_scale)
    slopes = scratch + layers * slot
    _keep(slopes, tl.zeros([ROWS, WIDEST], tl.float32), WIDEST, ROWS, WIDEST)
    _keep(slopes, error * (2.0 / O), PADDINGS[layers], ROWS, WIDEST)
    for i in tl.static_range(layers - 1, -1, -1):
        here = tl.arange(0, ROWS)[:, None] * WIDEST + tl.arange(0, PADDINGS[i])[None, :]
        below = tl.load(scratch + i * slot + here)
        total = _backward(
            weights + OFFSETS[i], gradients + OFFSETS[i], slopes, below,
            SIZES[i], SIZES[i + 1], PADDINGS[i], ROWS, WIDEST, BLOCK, STAGES,
        )  # fmt: skip
        if i > 0:
            _keep(slopes, tl.where(below > 0, total, 0.0), PADDINGS[i], ROWS, WIDEST)
