"""Returns of imagined trajectories as one Triton kernel, for a reward that is a program.

A program of the grid takes a few trajectories with all their steps, and runs the reward's lines for
each step: they are unrolled as the kernel is compiled, so each is a few instructions.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    """By a series near zero, where the other form cancels."""
    square = x * x
    near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)))
    falling = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - falling) / (1.0 + falling)
    return tl.where(tl.abs(x) < 0.1, near, tl.where(x < 0.0, -far, far))


@triton.jit
def _run(LINES: tl.constexpr, constants, obs, action, next_obs, inside):
    """The last line's value at every step, in the shape of the pointers.

    The operations are those of `reward_program.COMPUTED`: what is not a number stays so, as in
    torch. They stand here, and in no function, because the compiler would take a function for each
    line apart anew.
    """
    values = ()
    for i in tl.static_range(len(LINES)):
        if LINES[i][0] == "obs":
            value = tl.load(obs + LINES[i][1], mask=inside, other=0.0)
        elif LINES[i][0] == "action":
            value = tl.load(action + LINES[i][1], mask=inside, other=0.0)
        elif LINES[i][0] == "next_obs":
            value = tl.load(next_obs + LINES[i][1], mask=inside, other=0.0)
        elif LINES[i][0] == "number":
            value = tl.full([1, 1], LINES[i][1], tl.float32)
        elif LINES[i][0] == "constant":
            value = tl.full([1, 1], 0.0, tl.float32) + tl.load(constants[LINES[i][1]] + LINES[i][2])
        else:
            a, b, c = values[LINES[i][1]], values[LINES[i][2]], values[LINES[i][3]]
            if LINES[i][0] == "add":
                value = a + b
            elif LINES[i][0] == "sub":
                value = a - b
            elif LINES[i][0] == "mul":
                value = a * b
            elif LINES[i][0] == "div":
                value = a / b
            elif LINES[i][0] == "maximum":
                value = tl.where((a > b) | (a != a), a, b)
            elif LINES[i][0] == "minimum":
                value = tl.where((a < b) | (a != a), a, b)
            elif LINES[i][0] == "lt":
                value = a < b
            elif LINES[i][0] == "le":
                value = a <= b
            elif LINES[i][0] == "eq":
                value = a == b
            elif LINES[i][0] == "and":
                value = a & b
            elif LINES[i][0] == "or":
                value = a | b
            elif LINES[i][0] == "not":
                value = a == 0
            elif LINES[i][0] == "where":
                value = tl.where(a, b, c)
            elif LINES[i][0] == "float":
                value = a.to(tl.float32)
            elif LINES[i][0] == "neg":
                value = -a
            elif LINES[i][0] == "abs":
                value = tl.abs(a)
            elif LINES[i][0] == "sqrt":
                value = tl.sqrt(a)
            elif LINES[i][0] == "exp":
                value = tl.exp(a)
            elif LINES[i][0] == "log":
                value = tl.log(a)
            elif LINES[i][0] == "sin":
                value = tl.sin(a)
            elif LINES[i][0] == "cos":
                value = tl.cos(a)
            else:
                tl.static_assert(LINES[i][0] == "tanh")
                value = _tanh(a)
        values = values + (value,)
    return values[len(LINES) - 1]


@triton.jit(do_not_specialize=["total", "horizon"])
def returns_kernel(
    states,  # [H + 1, B K, STATE] float32, its first two dimensions by strides
    actions,  # [B K, H, CONTROL] float32
    constants,  # of the reward, a tuple
    end_constants,  # of the termination, a tuple
    returns,  # [B K] float32, written
    total,  # B K
    horizon,  # H
    step_stride,
    particle_stride,
    CONTROL: tl.constexpr,
    REWARD: tl.constexpr,  # lines of a `Program`, see `launch_returns`
    ENDS: tl.constexpr,  # those of a termination, or none
    STEPS: tl.constexpr,  # H padded to a power of two
    TILE: tl.constexpr,  # trajectories
):
    particle = tl.program_id(0) * TILE + tl.arange(0, TILE)[None, :]
    step = tl.arange(0, STEPS)[:, None]
    inside = (particle < total) & (step < horizon)
    place = particle.to(tl.int64)
    obs = states + step.to(tl.int64) * step_stride + place * particle_stride
    action = actions + (place * horizon + step) * CONTROL
    reward = _run(REWARD, constants, obs, action, obs + step_stride, inside)
    paid = inside
    if len(ENDS) > 0:
        ends = _run(ENDS, end_constants, obs, action, obs + step_stride, inside)
        ends = (ends & inside).to(tl.int32)
        paid = inside & (tl.cumsum(ends, 0) == ends)  # the step that ends it is paid
    summed = tl.sum(tl.where(paid, reward, 0.0), 0)
    summed = tl.where(summed == summed, summed, -float("inf"))
    out = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tl.store(returns + out, summed, mask=out < total)
