"""The regularised last layer of a hypernetwork as one Triton kernel.

A program walks over blocks of written numbers. For each it reads its rows of W, forms the gradient
of the task loss, an outer product, takes Adam's step on it, writes the old tasks' numbers, and
turns their distance from the targets into gradients of the rows and of the old tasks' hidden
layers.
"""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from hypercrl_kernels.training.adam_triton import adam_moved, adam_rates


@triton.jit(do_not_specialize=["size", "count", "slope_scale"])
def regularised_head_kernel(
    head,  # [size WIDTH + size] float32
    gradient,  # the same, written
    mean,  # the same
    square,  # the same
    step,  # [] float32
    written_gradient,  # [size]
    hidden,  # [WIDTH]
    old,  # [count, WIDTH]
    targets,  # [all, size]
    tasks,  # [count] int64, where CHOSEN
    distances,  # [programs], written: shares of R
    old_gradients,  # [programs, TASKS, PADDED], written
    size,  # P
    count,  # T
    slope_scale,  # 2 strength / T
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,  # WIDTH, a power of two
    TASKS: tl.constexpr,  # T, a power of two
    CHOSEN: tl.constexpr,  # whether targets are rows out of more, else all in order
    RATE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rate, inverse_root = adam_rates(step, RATE, LOG_BETA1, LOG_BETA2)
    column = tl.arange(0, PADDED)
    task = tl.arange(0, TASKS)
    in_width, is_task = column < WIDTH, task < count
    input_now = tl.load(hidden + column, mask=in_width, other=0.0)
    inputs = tl.load(
        old + task[:, None] * WIDTH + column[None, :],
        mask=is_task[:, None] & in_width[None, :],
        other=0.0,
    )
    target_row = task.to(tl.int64) * size
    if CHOSEN:
        target_row = tl.load(tasks + task, mask=is_task, other=0) * size
    distance = tl.zeros([BLOCK], tl.float32)
    old_gradient = tl.zeros([TASKS, PADDED], tl.float32)
    for first in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        row = first + tl.arange(0, BLOCK)
        inside = row < size
        slope_now = tl.load(written_gradient + row, mask=inside, other=0.0)

        at = row[:, None] * WIDTH + column[None, :]
        valid = inside[:, None] & in_width[None, :]
        weight_gradient = slope_now[:, None] * input_now[None, :]
        weight, _, _ = adam_moved(
            tl.load(head + at, mask=valid, other=0.0),
            weight_gradient,
            tl.load(mean + at, mask=valid, other=0.0),
            tl.load(square + at, mask=valid, other=0.0),
            rate, inverse_root, BETA1, BETA2, EPSILON,
        )  # fmt: skip
        bias_at = size * WIDTH + row
        bias, _, _ = adam_moved(
            tl.load(head + bias_at, mask=inside, other=0.0),
            slope_now,
            tl.load(mean + bias_at, mask=inside, other=0.0),
            tl.load(square + bias_at, mask=inside, other=0.0),
            rate, inverse_root, BETA1, BETA2, EPSILON,
        )  # fmt: skip

        both = inside[:, None] & is_task[None, :]
        wanted = tl.load(targets + target_row[None, :] + row[:, None], mask=both, other=0.0)
        written = tl.dot(weight, tl.trans(inputs), input_precision="tf32x3") + bias[:, None]
        difference = tl.where(both, written - wanted, 0.0)
        distance += tl.sum(difference * difference, 1)
        slope = difference * slope_scale
        weight_gradient = tl.dot(slope, inputs, weight_gradient, input_precision="tf32x3")
        old_gradient = tl.dot(tl.trans(slope), weight, old_gradient, input_precision="tf32x3")
        tl.store(gradient + at, weight_gradient, mask=valid)
        tl.store(gradient + bias_at, slope_now + tl.sum(slope, 1), mask=inside)
    tl.store(distances + tl.program_id(0), tl.sum(distance, 0) / count)
    out = old_gradients + tl.program_id(0) * TASKS * PADDED
    tl.store(out + task[:, None] * PADDED + column[None, :], old_gradient)
