"""Launches of the kernels beside the rollouts; imported only where Triton is used."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hypercrl_kernels.planning.elites_reference import Elites
from hypercrl_kernels.planning.elites_triton import elites_kernel
from hypercrl_kernels.planning.returns_triton import returns_kernel
from hypercrl_kernels.planning.reward_program import Program
from hypercrl_kernels.planning.sampling_triton import sampling_kernel

_TILE = 8192  # values a program of the elites kernel holds: 32 a thread
_FUSED = 2048  # samples that one launch refits to and draws: more have not been measured
_RETURNS = 1024  # steps of all trajectories of a program of the returns kernel


def launch_elites(returns: Tensor, actions: Tensor, elites: int, min_std: Tensor) -> Elites:
    """`elite_statistics` by the kernel."""
    return _launch_update(returns, actions, elites, min_std, None)[0]


def launch_refit(
    returns: Tensor,
    actions: Tensor,
    elites: int,
    min_std: Tensor,
    noise: Tensor,
    low: Tensor,
    high: Tensor,
) -> tuple[Elites, Tensor]:
    """`refit_and_sample` by the kernel, or by two of them where samples are very many."""
    if returns.shape[1] > _FUSED:
        fitted = launch_elites(returns, actions, elites, min_std)
        return fitted, launch_sampling(fitted.mean, fitted.std, noise, low, high)
    return _launch_update(returns, actions, elites, min_std, (noise, low, high))


def _launch_update(
    returns: Tensor,
    actions: Tensor,
    elites: int,
    min_std: Tensor,
    draw: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Elites, Tensor]:
    """Elites, and the next samples by noise and bounds; without these the samples as they were."""
    robots, samples, horizon, control = actions.shape
    size = horizon * control
    padded = triton.next_power_of_2(samples)
    coordinates = max(1, min(8, _TILE // padded))
    mean, std, best = actions.new_empty(3, robots, horizon, control)
    actions = actions.contiguous()
    noise, low, high = (x.contiguous() for x in draw or (actions, min_std, min_std))
    drawn = torch.empty_like(actions) if draw else actions
    elites_kernel[(triton.cdiv(size, coordinates), robots)](
        returns.contiguous(),
        actions,
        min_std.contiguous(),
        mean,
        std,
        best,
        noise,
        low,
        high,
        drawn,
        samples,
        size,
        elites,
        CONTROL=control,
        SAMPLES=padded,
        COORDINATES=coordinates,
        # With few samples a round costs its latency, with many its comparisons.
        BITS=4 if padded <= 1024 else 3,
        DRAWS=draw is not None,
        num_warps=4 if padded * coordinates <= _TILE // 2 else 8,  # pyright: ignore[reportCallIssue]
    )
    return Elites(mean, std, best), drawn


def launch_sampling(mean: Tensor, std: Tensor, noise: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`sample_actions` by the kernel."""
    robots, samples, horizon, control = noise.shape
    actions = torch.empty_like(noise, memory_format=torch.contiguous_format)
    total = samples * horizon * control
    block = 512
    sampling_kernel[(triton.cdiv(total, block), robots)](
        mean.contiguous(),
        std.contiguous(),
        noise.contiguous(),
        low.contiguous(),
        high.contiguous(),
        actions,
        total,
        horizon * control,
        CONTROL=control,
        BLOCK=block,
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )
    return actions


def launch_returns(
    states: Tensor, actions: Tensor, reward: Program, termination: Program | None
) -> Tensor:
    """`TracedReturns` by the kernel."""
    robots, samples, horizon, control = actions.shape
    states = states.float()
    if states.stride(3) != 1 or states.stride(0) != samples * states.stride(1):
        states = states.contiguous()
    total = robots * samples
    steps = triton.next_power_of_2(horizon)
    # A few trajectories a program, until there are more than fill the device.
    tile = max(1, min(4 if total <= 4096 else 16, _RETURNS // steps))
    returns = actions.new_empty(robots, samples, dtype=torch.float32)
    ends = termination or Program((), ())
    returns_kernel[(triton.cdiv(total, tile),)](
        states,
        actions.float().contiguous(),
        reward.constants or (returns,),
        ends.constants or (returns,),
        returns,
        total,
        horizon,
        states.stride(2),
        states.stride(1),
        CONTROL=control,
        REWARD=_unrolled(reward),
        ENDS=_unrolled(ends),
        STEPS=steps,
        TILE=tile,
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )
    return returns


def _unrolled(program: Program) -> tuple[tuple[tl.constexpr, ...], ...]:
    """The lines for the compiler: three operands each, the first one again where there are fewer,
    and every part marked as a constant, without which it knows no words."""
    padded = ((line + line[1:2] * 2)[:4] for line in program.lines)
    return tuple(tuple(tl.constexpr(part) for part in line) for line in padded)
