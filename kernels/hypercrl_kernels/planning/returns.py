"""Sums of rewards along trajectories: one kernel for a reward that can be traced."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.planning.reward_program import Program
from hypercrl_kernels.planning.reward_tracer import TransitionFunction, trace

MOST_STEPS = 1024  # of a trajectory, which a program of the kernel holds as a whole


class TracedReturns:
    """(states [B, K, H + 1, O], actions [B, K, H, A]) → returns [B, K], by the kernel.

    The sum of rewards up to the step that ends a trajectory; −∞ where it is not a number.
    """

    def __init__(self, reward: Program, termination: Program | None) -> None:
        self.reward = reward
        self.termination = termination

    @torch.no_grad()
    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        from hypercrl_kernels.planning.update_launch import launch_returns

        return launch_returns(states, actions, self.reward, self.termination)


def trace_returns(
    reward: TransitionFunction,
    termination: TransitionFunction | None,
    obs: int,
    action: int,
    horizon: int,
    device: torch.device,
) -> TracedReturns | None:
    """The kernel for this reward and termination, None where there is none: not on CUDA, a function
    that is no `Program`, more than `MOST_STEPS` steps.

    Args:
        obs, action: O and A; horizon: H.
    """
    if device.type != "cuda" or horizon > MOST_STEPS:
        return None
    paid = trace(reward, obs, action, device)
    ends = None if termination is None else trace(termination, obs, action, device)
    if paid is None or (termination is not None and ends is None):
        return None
    return TracedReturns(paid, ends)
