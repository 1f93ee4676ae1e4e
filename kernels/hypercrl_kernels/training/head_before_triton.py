"""The regularised last layer of a hypernetwork as one Triton kernel.

A program walks over blocks of written numbers. For each it reads its rows of W, forms the gradient
of the task loss, an outer product (the sum of one for each member of an ensemble), takes Adam's
step on it, writes the old tasks' numbers, and turns their distance from the targets into gradients
of the rows and of the old tasks' hidden layers. Old tasks come TASKS at a time, as many as
registers hold sums for; more take further walks, which add to the gradient.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false

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
    written_gradient,  # [MEMBERS, size]
    hidden,  # [MEMBERS, WIDTH]
    old,  # [count, WIDTH]
    targets,  # [all, size]
    tasks,  # [count] int64, where CHOSEN
    distances,  # [programs], written: shares of R
    squares,  # [programs], written: shares of the squared norm of the gradient
    old_gradients,  # [programs, count, WIDTH], written
    size,  # P
    count,  # T
    slope_scale,  # 2 strength / T
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,  # WIDTH, a power of two
    MEMBERS: tl.constexpr,
    TASKS: tl.constexpr,
    OLD: tl.constexpr,  # whether there is an old task
    CHOSEN: tl.constexpr,  # whether targets are rows out of more, else all in order
    RATE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    rate, inverse_root = adam_rates(tl.load(step) + 1.0, RATE, LOG_BETA1, LOG_BETA2)
    column = tl.arange(0, PADDED)
    in_width = column < WIDTH
    input_now = tl.load(hidden + column, mask=in_width, other=0.0)
    distance = tl.zeros([BLOCK], tl.float32)
    norm = tl.zeros([BLOCK], tl.float32)
    old_gradients += tl.program_id(0) * count * WIDTH
    for walked in range(0, tl.maximum(count, 1), TASKS):
        last_walk = walked + TASKS >= count
        task = walked + tl.arange(0, TASKS)
        is_task = task < count
        of_task = task[:, None] * WIDTH + column[None, :]
        inputs = tl.load(old + of_task, mask=is_task[:, None] & in_width[None, :], other=0.0)
        target_row = task.to(tl.int64) * size
        if CHOSEN:
            target_row = tl.load(tasks + task, mask=is_task, other=0) * size
        total = tl.zeros([TASKS, PADDED], tl.float32)
        for first in tl.range(
            tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK, num_stages=STAGES
        ):
            row = first + tl.arange(0, BLOCK)
            inside = row < size
            slope_now = tl.load(written_gradient + row, mask=inside, other=0.0)

            at = row[:, None] * WIDTH + column[None, :]
            valid = inside[:, None] & in_width[None, :]
            weight_gradient = slope_now[:, None] * input_now[None, :]
            for member in tl.static_range(1, MEMBERS):
                slope = tl.load(written_gradient + member * size + row, mask=inside, other=0.0)
                inputs_of = hidden + member * WIDTH + column
                input_of = tl.load(inputs_of, mask=in_width, other=0.0)
                weight_gradient += slope[:, None] * input_of[None, :]
                slope_now += slope
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
            bias_gradient = slope_now
            if walked > 0:
                weight_gradient = tl.load(gradient + at, mask=valid, other=0.0)
                bias_gradient = tl.load(gradient + bias_at, mask=inside, other=0.0)

            if OLD:
                both = inside[:, None] & is_task[None, :]
                wanted = tl.load(targets + target_row[None, :] + row[:, None], mask=both, other=0.0)
                written = tl.dot(weight, tl.trans(inputs), input_precision="tf32x3")
                difference = tl.where(both, written + bias[:, None] - wanted, 0.0)
                distance += tl.sum(difference * difference, 1)
                slope = difference * slope_scale
                bias_gradient += tl.sum(slope, 1)
                weight_gradient = tl.dot(slope, inputs, weight_gradient, input_precision="tf32x3")
                total = tl.dot(tl.trans(slope), weight, total, input_precision="tf32x3")
            tl.store(gradient + at, weight_gradient, mask=valid)
            tl.store(gradient + bias_at, bias_gradient, mask=inside)
            if last_walk:
                norm += tl.sum(weight_gradient * weight_gradient, 1)
                norm += bias_gradient * bias_gradient
        if OLD:
            tl.store(old_gradients + of_task, total, mask=is_task[:, None] & in_width[None, :])
        tl.debug_barrier()  # the next walk reads gradients that any thread wrote
    tl.store(distances + tl.program_id(0), tl.sum(distance, 0) / tl.maximum(count, 1))
    tl.store(squares + tl.program_id(0), tl.sum(norm, 0))
