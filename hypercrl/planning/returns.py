"""What imagined trajectories are worth: their rewards, and what is to come behind their ends."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hypercrl_kernels.side_by_side import cores, side_by_side

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(obs [..., O], action [..., A], next_obs [..., O]) → reward [...]."""

Returns = Callable[[Tensor, Tensor], Tensor]
"""(states [B, K, H + 1, O], actions [B, K, H, A]) → returns [B, K], as `trajectory_returns`."""

Termination = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(obs [..., O], action [..., A], next_obs [..., O]) → bool [...], whether the episode ends."""

TerminalValue = Callable[[Tensor], Tensor]
"""States [..., O] → what is to come from there on, [...]."""


def trajectory_returns(
    states: Tensor,
    actions: Tensor,
    reward: Reward,
    termination: Termination | None = None,
    value: TerminalValue | None = None,
    discount: float = 1.0,
) -> Tensor:
    """Sum of rewards along trajectories up to the step that ends them, and what is to come.

    Σ_{t<H} γ^t r_t + γ^H V(s_H), of which nothing counts behind an end: no reward, no value. In one
    call of the reward, or inside `cores_apart` in one for each core, with its share of the
    trajectories.

    Args:
        states: [B, K, H + 1, O]; actions: [B, K, H, A].
        value: V, of the last states; None: nothing counts behind a trajectory.
        discount: γ.

    Returns:
        [B, K]; −inf where the sum is not a number, so that a diverged trajectory never wins.
    """
    size = -(-states.shape[1] // cores())
    pieces = [
        partial(_returns, own_states, own_actions, reward, termination, value, discount)
        for own_states, own_actions in zip(
            states.split(size, 1), actions.split(size, 1), strict=True
        )
    ]
    found = side_by_side(pieces)
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def _returns(
    states: Tensor,
    actions: Tensor,
    reward: Reward,
    termination: Termination | None,
    value: TerminalValue | None,
    discount: float,
) -> Tensor:
    transitions = states[:, :, :-1], actions, states[:, :, 1:]
    rewards = reward(*transitions)
    behind = None if value is None else value(states[:, :, -1])
    if termination is not None:
        ends = termination(*transitions).cumsum(-1)
        over = torch.cat([torch.zeros_like(ends[..., :1]), ends[..., :-1]], -1) > 0
        rewards = rewards.masked_fill(over, 0.0)  # what is not a number there is not paid either
        behind = None if behind is None else behind.masked_fill(ends[..., -1] > 0, 0.0)
    if discount != 1:
        rewards = rewards * discount ** torch.arange(rewards.shape[-1], device=rewards.device)
    returns = rewards.sum(-1)
    if behind is not None:
        returns = returns + discount ** actions.shape[2] * behind
    return returns.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
