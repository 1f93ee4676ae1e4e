"""Returns over a few steps that were made, for targets of a value."""

import torch
from torch import Tensor


def n_step_returns(
    rewards: Tensor, ends: Tensor, successors: Tensor, steps: int, discount: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What transitions and up to n − 1 that follow them have paid, and where they lead.

    Of the transition in slot i, with r_k the reward k steps later, y = Σ_{k<m} γ^k r_k + γ^m V(s_m)
    is the target of its state (Sutton and Barto, "Reinforcement learning", 2018, chapter 7). m is
    n, or less where the episode or what is held of it is over before: an episode that was cut by
    time is worth the value of its last state, one that has ended nothing more.

    Args:
        rewards: [N]; ends: bool [N], whether the transition ends its episode for good.
        successors: [N], see `Replay.successors`.
        steps: n; discount: γ.

    Returns:
        Of each slot Σ_{k<m} γ^k r_k [N], γ^m or 0 behind an end [N], and the slot [N] whose
        `next_obs` is s_m.
    """
    returns, last = rewards, torch.arange(len(rewards), device=rewards.device)
    factors, going = torch.full_like(rewards, discount), ~ends
    for _ in range(steps - 1):
        following = successors[last]
        going = going & (following >= 0)
        last = torch.where(going, following, last)
        returns = torch.where(going, returns + factors * rewards[last], returns)
        factors = torch.where(going, discount * factors, factors)
        going = going & ~ends[last]
    return returns, factors.masked_fill(ends[last], 0.0), last
