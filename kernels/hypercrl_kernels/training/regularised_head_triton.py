"""The regularised last layer of a hypernetwork as one Triton kernel.

A program walks over blocks of written numbers. For each it reads its rows of W, forms the gradient
of the task loss, an outer product (the sum of one for each member of an ensemble), takes Adam's
step on it, writes the old tasks' numbers, and turns their distance from the targets into gradients
of the rows and of the old tasks' hidden layers. Old tasks come TASKS at a time; more take further
walks, which add to the gradient.

As in attention, the old tasks' hidden layers stay in shared memory as the queries do, rows of W
pass by as keys and values do, and what a product leaves in registers is an operand of the next.
That takes operands of 16 bits, so a number of float32 is a sum of two of float16, and a product of
two such sums leaves out that of the lesser parts. With u = 2⁻¹¹, float16's unit roundoff, it is
right to 3 u² = 3 · 2⁻²², float32's own to 2⁻²⁴. Two parts of bfloat16, whose u is 2⁻⁸, would leave
3 · 2⁻¹⁶, and Adam makes much of an error where a gradient is near zero.

float16 has a range, so operands are times a power of two. None is more than 2⁻²⁵ / scale off, which
of weights is 2⁻³³; beyond 65504 / scale it is infinite, a step that `hypercrl` reports as diverged:
a hidden layer's number beyond 4094, a weight or a distance from a target beyond 255.

Where WIDTH is no power of two, b is one more column of W, whose input is 1.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false

import triton
import triton.language as tl

from hypercrl_kernels.training.adam_triton import adam_moved, adam_rates


@triton.jit
def parts(x, SCALE: tl.constexpr):
    """Two float16 numbers that x times SCALE is the sum of, the larger first."""
    x *= SCALE
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def rows_of(flat, at, valid, bias_at, inside, is_bias, APART: tl.constexpr):
    """Rows [BLOCK, PADDED] of W, with b as one more column unless it is APART."""
    rows = tl.load(flat + at, mask=valid, other=0.0)
    if not APART:
        bias = tl.load(flat + bias_at, mask=inside, other=0.0)
        rows = tl.where(is_bias[None, :], bias[:, None], rows)
    return rows


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
):
    rate, inverse_root = adam_rates(tl.load(step) + 1.0, RATE, LOG_BETA1, LOG_BETA2)
    APART: tl.constexpr = WIDTH == PADDED  # no column is left for b
    INPUTS: tl.constexpr = 2.0**4  # scales of the old tasks' hidden layers,
    WEIGHTS: tl.constexpr = 2.0**8  # of W and b,
    DISTANCES: tl.constexpr = 2.0**8  # and of how far what is written is from the targets
    column = tl.arange(0, PADDED)
    in_width = column < WIDTH
    is_bias = column == WIDTH
    ones = tl.where(is_bias, 1.0, 0.0)
    input_now = tl.load(hidden + column, mask=in_width, other=0.0) + ones
    distance = tl.zeros([TASKS], tl.float32)
    norm = tl.zeros([BLOCK, PADDED], tl.float32)
    bias_norm = tl.zeros([BLOCK], tl.float32)
    old_gradients += tl.program_id(0) * count * WIDTH
    for walked in range(0, tl.maximum(count, 1), TASKS):
        last_walk = walked + TASKS >= count
        task = walked + tl.arange(0, TASKS)
        is_task = task < count
        of_task = task[:, None] * WIDTH + column[None, :]
        of_width = is_task[:, None] & in_width[None, :]
        inputs = tl.load(old + of_task, mask=of_width, other=0.0) + ones[None, :]
        input_high, input_low = parts(inputs, INPUTS)
        target_row = task.to(tl.int64) * size
        if CHOSEN:
            target_row = tl.load(tasks + task, mask=is_task, other=0) * size
        total = tl.zeros([TASKS, PADDED], tl.float32)
        for first in tl.range(
            tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK, num_stages=1
        ):
            row = first + tl.arange(0, BLOCK)
            inside = row < size
            at = row[:, None] * WIDTH + column[None, :]
            bias_at = size * WIDTH + row
            valid = inside[:, None] & in_width[None, :]
            head_now = rows_of(head, at, valid, bias_at, inside, is_bias, APART)
            mean_now = rows_of(mean, at, valid, bias_at, inside, is_bias, APART)
            square_now = rows_of(square, at, valid, bias_at, inside, is_bias, APART)
            if OLD:  # here, as loads wait for barriers that stand before them
                both = is_task[:, None] & inside[None, :]
                wanted = tl.load(targets + target_row[:, None] + row[None, :], mask=both, other=0.0)

            slope_now = tl.load(written_gradient + row, mask=inside, other=0.0)
            weight_gradient = slope_now[:, None] * input_now[None, :]
            for member in tl.static_range(1, MEMBERS):
                slope = tl.load(written_gradient + member * size + row, mask=inside, other=0.0)
                inputs_of = hidden + member * WIDTH + column
                input_of = tl.load(inputs_of, mask=in_width, other=0.0) + ones
                weight_gradient += slope[:, None] * input_of[None, :]
                slope_now += slope
            weight, _, _ = adam_moved(
                head_now, weight_gradient, mean_now, square_now,
                rate, inverse_root, BETA1, BETA2, EPSILON,
            )  # fmt: skip
            if APART:
                bias, _, _ = adam_moved(
                    tl.load(head + bias_at, mask=inside, other=0.0),
                    slope_now,
                    tl.load(mean + bias_at, mask=inside, other=0.0),
                    tl.load(square + bias_at, mask=inside, other=0.0),
                    rate, inverse_root, BETA1, BETA2, EPSILON,
                )  # fmt: skip
                bias_gradient = slope_now
            if walked > 0:
                weight_gradient = rows_of(gradient, at, valid, bias_at, inside, is_bias, APART)
                if APART:
                    bias_gradient = tl.load(gradient + bias_at, mask=inside, other=0.0)

            if OLD:
                high, low = parts(weight, WEIGHTS)
                written = tl.dot(input_low, tl.trans(high))
                written = tl.dot(input_high, tl.trans(low), written)
                written = tl.dot(input_high, tl.trans(high), written)
                written *= 1.0 / (INPUTS * WEIGHTS)
                if APART:
                    written += bias[None, :]
                difference = tl.where(both, written - wanted, 0.0)
                distance += tl.sum(difference * difference, 1)
                if APART:
                    bias_gradient += slope_scale * tl.sum(difference, 0)
                far_high, far_low = parts(difference, DISTANCES)
                total = tl.dot(far_low, high, total)
                total = tl.dot(far_high, low, total)
                total = tl.dot(far_high, high, total)
                found = tl.dot(tl.trans(far_low), input_high)
                found = tl.dot(tl.trans(far_high), input_low, found)
                found = tl.dot(tl.trans(far_high), input_high, found)
                weight_gradient += (slope_scale * (1.0 / (INPUTS * DISTANCES))) * found
            tl.store(gradient + at, weight_gradient, mask=valid)
            if not APART:
                bias_gradient = tl.sum(tl.where(is_bias[None, :], weight_gradient, 0.0), 1)
            tl.store(gradient + bias_at, bias_gradient, mask=inside)
            if last_walk:
                norm += weight_gradient * weight_gradient
                if APART:
                    bias_norm += bias_gradient * bias_gradient
        if OLD:
            tl.store(
                old_gradients + of_task,
                (slope_scale * (1.0 / (WEIGHTS * DISTANCES))) * total,
                mask=of_width,
            )
        tl.debug_barrier()  # the next walk reads gradients that any thread wrote
    tl.store(distances + tl.program_id(0), tl.sum(distance, 0) / tl.maximum(count, 1))
    tl.store(squares + tl.program_id(0), tl.sum(tl.sum(norm, 1) + bias_norm, 0))
