"""The squared error of scaled changes, and its gradient, as one Triton kernel of one program."""

# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["numel"])
def scaled_error_kernel(
    outputs,  # [B, SIZE] float32
    obs,
    next_obs,
    mean,  # [SIZE]
    scale,
    loss,  # [], written
    slope,  # [B, SIZE], written
    numel,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, numel, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = at < numel
        dimension = at % SIZE
        change = tl.load(next_obs + at, mask=inside, other=0.0)
        change -= tl.load(obs + at, mask=inside, other=0.0)
        target = (change - tl.load(mean + dimension)) / tl.load(scale + dimension)
        error = tl.load(outputs + at, mask=inside, other=0.0) - target
        error = tl.where(inside, error, 0.0)
        total += error * error
        tl.store(slope + at, error * (2.0 / SIZE), mask=inside)
    tl.store(loss, tl.sum(total, 0) / SIZE)
