"""A dynamics network's layers, forward with its squared error and backward, a Triton kernel each.

A program computes one tile of what a layer gives. Products are in float32 without tensor cores:
they are small, and the step that Adam looks ahead magnifies an error of a gradient near zero.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count", "loss_scale"])
def network_layer_kernel(
    weights,  # W [OUT, IN] row by row, then b [OUT]
    x,  # [count, IN]; written where FIRST
    obs,  # [count, O]
    action,  # [count, A]
    next_obs,  # [count, O]
    input_mean,  # [O + A]
    input_scale,
    target_mean,  # [O]
    target_scale,
    outputs,  # [count, OUT], written: after ReLU; where LAST, the loss's slope
    losses,  # [programs], written where LAST
    count,
    loss_scale,
    obs_stride,  # from row to row
    action_stride,
    next_stride,
    O: tl.constexpr,  # noqa: E741
    IN: tl.constexpr,
    OUT: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """ROWS of the batch and COLUMNS of the layer's outputs."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    valid, used = (row < count)[:, None], unit < OUT
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, IN, BLOCK, num_stages=STAGES):
        column = start + tl.arange(0, BLOCK)
        inside = column < IN
        at = x + row[:, None] * IN + column[None, :]
        if FIRST:
            is_obs, is_action = (column < O)[None, :], ((column >= O) & inside)[None, :]
            value = tl.load(
                obs + row[:, None] * obs_stride + column[None, :], mask=valid & is_obs, other=0.0
            ) + tl.load(
                action + row[:, None] * action_stride + column[None, :] - O,
                mask=valid & is_action,
                other=0.0,
            )
            mean = tl.load(input_mean + column, mask=inside, other=0.0)
            scale = tl.load(input_scale + column, mask=inside, other=1.0)
            value = (value - mean[None, :]) / scale[None, :]
            if tl.program_id(1) == 0:
                tl.store(at, value, mask=valid & inside[None, :])
        else:
            value = tl.load(at, mask=valid & inside[None, :], other=0.0)
        weight = tl.load(
            weights + unit[:, None] * IN + column[None, :],
            mask=used[:, None] & inside[None, :],
            other=0.0,
        )
        total = tl.dot(value, tl.trans(weight), total, input_precision="ieee")
    total += tl.load(weights + OUT * IN + unit, mask=used, other=0.0)[None, :]
    both = valid & used[None, :]
    if LAST:
        change = tl.load(
            next_obs + row[:, None] * next_stride + unit[None, :], mask=both, other=0.0
        ) - tl.load(obs + row[:, None] * obs_stride + unit[None, :], mask=both, other=0.0)
        mean = tl.load(target_mean + unit, mask=used, other=0.0)
        scale = tl.load(target_scale + unit, mask=used, other=1.0)
        error = tl.where(both, total - (change - mean[None, :]) / scale[None, :], 0.0)
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(losses + program, tl.sum(tl.sum(error * error, 1), 0) * loss_scale)
        total = error * (2.0 / O)
    else:
        total = tl.maximum(total, 0.0)
    tl.store(outputs + row[:, None] * OUT + unit[None, :], total, mask=both)


@triton.jit
def _parameter_tile(
    x, slopes, gradient, count, output, unit, IN: tl.constexpr, OUT: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights from `unit` to `output`, and of the biases, over all rows."""
    used, inside = output < OUT, unit < IN
    total = tl.zeros([output.shape[0], unit.shape[0]], tl.float32)
    bias = tl.zeros([output.shape[0]], tl.float32)
    for start in tl.range(0, count, BLOCK, num_stages=STAGES):
        row = start + tl.arange(0, BLOCK)
        valid = (row < count)[:, None]
        slope = tl.load(
            slopes + row[:, None] * OUT + output[None, :], mask=valid & used[None, :], other=0.0
        )
        value = tl.load(
            x + row[:, None] * IN + unit[None, :], mask=valid & inside[None, :], other=0.0
        )
        total = tl.dot(tl.trans(slope), value, total, input_precision="ieee")
        bias += tl.sum(slope, 0)
    at = output[:, None] * IN + unit[None, :]
    tl.store(gradient + at, total, mask=used[:, None] & inside[None, :])
    tl.store(gradient + OUT * IN + output, bias, mask=used)  # by every column of tiles, alike


@triton.jit
def _slope_tile(
    weights, x, slopes, below, count, row, unit, IN: tl.constexpr, OUT: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The loss's slope at the layer's inputs, which a ReLU gave."""
    valid, inside = (row < count)[:, None], (unit < IN)[None, :]
    total = tl.zeros([row.shape[0], unit.shape[0]], tl.float32)
    for start in tl.range(0, OUT, BLOCK, num_stages=STAGES):
        output = start + tl.arange(0, BLOCK)
        used = output < OUT
        slope = tl.load(
            slopes + row[:, None] * OUT + output[None, :], mask=valid & used[None, :], other=0.0
        )
        weight = tl.load(
            weights + output[:, None] * IN + unit[None, :], mask=used[:, None] & inside, other=0.0
        )
        total = tl.dot(slope, weight, total, input_precision="ieee")
    at = row[:, None] * IN + unit[None, :]
    h = tl.load(x + at, mask=valid & inside, other=0.0)
    tl.store(below + at, tl.where(h > 0, total, 0.0), mask=valid & inside)


@triton.jit(do_not_specialize=["count"])
def network_layer_back_kernel(
    weights,  # W [OUT, IN] row by row, then b [OUT]
    x,  # [count, IN]
    slopes,  # [count, OUT]
    gradient,  # as `weights`, written
    below,  # [count, IN], the slope there, written unless FIRST
    count,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Tiles of the parameters' gradient come first, then those of the slope."""
    unit = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    tiles: tl.constexpr = (OUT + COLUMNS - 1) // COLUMNS
    if tl.program_id(0) < tiles:
        output = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        _parameter_tile(x, slopes, gradient, count, output, unit, IN, OUT, BLOCK, STAGES)
    elif not FIRST:
        row = (tl.program_id(0) - tiles) * ROWS + tl.arange(0, ROWS)
        _slope_tile(weights, x, slopes, below, count, row, unit, IN, OUT, BLOCK, STAGES)
